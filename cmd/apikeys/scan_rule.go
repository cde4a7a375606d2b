package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// scanRuleCommand prints the rule by which a secret scanner finds the keys, and the access
// tokens of operators, that a server with the same settings makes.
type scanRuleCommand struct {
	Config         string `group:"files" placeholder:"FILE" help:"YAML file of settings, named like the flags with underscores."`
	formatSettings `embed:""`

	Format string `argument:"" required:"" enum:"gitleaks,trufflehog,github" placeholder:"SCANNER" help:"The scanner: gitleaks, trufflehog or github."`
}

// Run writes the rule to standard output.
func (c *scanRuleCommand) Run(_ context.Context, sources *sources, out streams) error {
	sources.warnUnknown(slog.New(slog.NewTextHandler(out.stderr, nil)))
	formats, err := c.formats()
	if err != nil {
		return err
	}
	if err := formats.Check(); err != nil {
		return fmt.Errorf("key_formats: %w", err)
	}
	_, err = io.WriteString(out.stdout, scanRules[c.Format](append(formats.Prefixes(), apikey.TokenPrefix)))
	return err
}

// scanRules make the rules for secrets with prefixes, by the names of the scanners.
var scanRules = map[string]func(prefixes []string) string{
	"gitleaks": gitleaksRule, "trufflehog": trufflehogRule, "github": githubRule,
}

// The patterns of what stands around a secret. A secret does not begin within a word, so
// that the end of a longer prefix is not taken for a prefix. But it may follow an
// escape, such as the %3D of a query, which ends in a letter or a digit.
const (
	escapePattern = `\\[nrt]|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|%[0-9A-Fa-f]{2}`
	beforePattern = `\b|` + escapePattern
	afterPattern  = `\b|_`
)

// secretPattern returns the pattern of secrets with prefixes. Which of their texts have
// a right checksum, no pattern can tell.
func secretPattern(prefixes []string) string {
	return "(?:" + strings.Join(prefixes, "|") + ")" + fmt.Sprintf("[0-9A-Za-z]{%d}", apikey.TailLength)
}

// ruleHead returns the comment that each rule begins with.
func ruleHead(scanner string, prefixes []string) string {
	return fmt.Sprintf(`# Finds the secrets of API keys and the access tokens of operators that begin with %s.
# Printed by: apikeys scan-rule --format %s
# A mistyped secret is found too: only its checksum tells, and no pattern can compute that.
`, strings.Join(prefixes, ", "), scanner)
}

// gitleaksRule returns a configuration of gitleaks with this rule alone.
func gitleaksRule(prefixes []string) string {
	return ruleHead("gitleaks", prefixes) + fmt.Sprintf(`# To have the rules of gitleaks besides, add a table [extend] with useDefault = true.

title = "API keys and operator tokens"

[[rules]]
id = "apikeys-secret"
description = "The secret of an API key, or the access token of an operator; revoke or delete it, or rotate it."
regex = '''(?:%s)(%s)(?:%s)'''
secretGroup = 1
keywords = ["%s"]
`, beforePattern, secretPattern(prefixes), afterPattern, strings.Join(prefixes, `", "`))
}

// trufflehogRule returns a configuration of trufflehog with a detector.
func trufflehogRule(prefixes []string) string {
	return ruleHead("trufflehog", prefixes) + fmt.Sprintf(`# Use it as: trufflehog filesystem --config=FILE --no-verification PATH

detectors:
  - name: apikeys-secret
    keywords:
      - %s
    regex:
      secret: '(?:%s)(%s)(?:%s)'
`, strings.Join(prefixes, "\n      - "), beforePattern, secretPattern(prefixes), afterPattern)
}

// githubRule returns the fields of a custom pattern of GitHub's secret scanning,
// which is made in its settings.
func githubRule(prefixes []string) string {
	return ruleHead("github", prefixes) + fmt.Sprintf(`# For the fields of Settings, Advanced Security, Custom patterns, New pattern.

pattern_name: 'API key or operator token'
secret_format: '%s'
before_secret: '\A|[^0-9A-Za-z_]|%s'
after_secret: '\z|[^0-9A-Za-z]'
`, secretPattern(prefixes), escapePattern)
}
