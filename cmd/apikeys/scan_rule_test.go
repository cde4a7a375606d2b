package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
)

// scanRule returns what `apikeys scan-rule` prints.
func scanRule(t *testing.T, scanner string, env []string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{"scan-rule", "--format", scanner}, args...)
	if err := run(t.Context(), args, env, streams{stdout: &stdout, stderr: &stderr}); err != nil {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error: %s", stderr.String())
	}
	return stdout.String()
}

// TestDefaultScanRules holds deploy/secret-scanning to what the program prints.
func TestDefaultScanRules(t *testing.T) {
	for scanner, name := range map[string]string{"gitleaks": "gitleaks.toml", "trufflehog": "trufflehog.yaml", "github": "github.yaml"} {
		path := filepath.Join("../../deploy/secret-scanning", name)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(scanRule(t, scanner, nil), string(got)); diff != "" {
			t.Errorf("%s is not what apikeys scan-rule --format %s prints; write it anew: (-want +got)\n%s", path, scanner, diff)
		}
	}
}

// TestScanRuleReadsTheSettings has the rule for the formats of flag, environment and
// file, in this order.
func TestScanRuleReadsTheSettings(t *testing.T) {
	file := writeConfig(t, "key_formats: [{name: a, prefix: file_, mode: live}]\nshutdown_delay: 1s\n")
	for name, c := range map[string]struct {
		env, args []string
		want      string
	}{
		"default":     {nil, nil, "sk_live_, sk_test_, opt_"},
		"file":        {nil, []string{"--config", file}, "file_, opt_"},
		"environment": {[]string{"APIKEYS_CONFIG=" + file, "APIKEYS_KEY_FORMATS=a=env_:live,b=try_:test"}, nil, "env_, try_, opt_"},
		"flag":        {[]string{"APIKEYS_KEY_FORMATS=a=env_:live"}, []string{"--key-formats", "a=flag_:live"}, "flag_, opt_"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, want := scanRule(t, "github", c.env, c.args...), "begin with "+c.want+".\n"; !strings.Contains(got, want) {
				t.Errorf("%q is not in:\n%s", want, got)
			}
		})
	}
	for name, c := range map[string]struct {
		args []string
		want string
		code int
	}{
		"no scanner":         {[]string{}, "missing flags: --format=SCANNER", 2},
		"an unknown scanner": {[]string{"--format", "x"}, `--format must be one of "gitleaks","trufflehog","github"`, 2},
		"no format":          {[]string{"--format", "github", "--key-formats", "x"}, "key_formats: \"x\" must be name=prefix:mode", 2},
		"a refused format":   {[]string{"--format", "github", "--key-formats", "x=root_:live"}, "key_formats: number 1 has the prefix root_", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), append([]string{"scan-rule"}, c.args...), nil, streams{stdout: &out, stderr: &out})
			if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != c.code || out.Len() > 0 {
				t.Errorf("the fault is %v, code %d, output %q", err, exitCode(err), out.String())
			}
		})
	}
}

// leakFormats are the formats that the rules below are for: one that ends like
// another, one of digits, a short one and the longest there is.
const leakFormats = "a=sk_live_:live,b=task_live_:live,c=k8s_9_:test,d=a_:test,e=abcdefghij_abcdefghij_x_:live"

// leaks returns a text with keys and operator tokens, these, and among them what is none.
func leaks(t *testing.T) (text string, keys []string) {
	t.Helper()
	secretOf := func(prefix string) string {
		secret, err := apikey.NewSecret(prefix, nil)
		if err != nil {
			t.Fatal(err)
		}
		return secret.Reveal()
	}
	// A line with a key for each ¤, of every prefix.
	places := []string{
		"¤", "  ¤  ", "API_TOKEN=¤", `export API_TOKEN="¤"`, "api_key: '¤'", `{"key": "¤"}`, `{\"key\": \"¤\"}`, "Authorization: Bearer ¤",
		"curl -H 'X-API-Key: ¤' https://example.com", "https://example.com/?key=¤&x=1", "https://example.com/?q=key%3D¤%26x", "https://user:¤@example.com/",
		"`¤`", "(¤)", "¤,¤;¤", "¤.", "¤_old", "secret-token:¤", `"a\n¤\nb"`, `"a\t¤\u0026b\u003d¤"`, "<key>¤</key>", "é ¤ é", "¤\t# gone", "-¤-",
	}
	// A line of what is no key, for each prefix and the 49 characters after it.
	misses := []func(prefix, tail string) string{
		func(p, tail string) string { return p + tail[1:] },                      // one short
		func(p, tail string) string { return p + tail + "0" },                    // one long
		func(p, tail string) string { return p + tail + tail },                   // twice as long
		func(_, tail string) string { return tail },                              // no prefix
		func(_, tail string) string { return "_" + tail },                        // its underscore alone
		func(p, tail string) string { return p[:len(p)-1] + tail },               // no underscore
		func(p, tail string) string { return p[:len(p)-1] + "-" + tail },         // a hyphen for it
		func(p, tail string) string { return strings.ToUpper(p) + tail },         // upper case
		func(p, tail string) string { return "x" + p + tail },                    // the end of a word
		func(p, tail string) string { return "x_" + p + tail },                   // the end of a longer prefix
		func(p, tail string) string { return "other_" + tail },                   // another prefix
		func(p, tail string) string { return p + tail[:20] + "-" + tail[21:] },   // another alphabet
		func(p, tail string) string { return p + tail[:20] + "_" + tail[21:] },   // a base64 one
		func(p, tail string) string { return p + tail[:20] + "+" + tail[21:] },   // the other base64
		func(p, tail string) string { return p + tail[:20] + "é" + tail[22:] },   // not ASCII
		func(p, tail string) string { return p + tail[:20] + " " + tail[20:] },   // a break
		func(p, tail string) string { return p + tail[:12] + "..." + tail[44:] }, // a mask
		func(p, tail string) string { return "root_" + tail },                    // a root token
		func(p, tail string) string { return "whsec_" + tail },                   // like a webhook's
	}
	var lines strings.Builder
	for _, prefix := range []string{"sk_live_", "task_live_", "k8s_9_", "a_", "abcdefghij_abcdefghij_x_", "opt_"} {
		for _, place := range places {
			for strings.Contains(place, "¤") {
				keys = append(keys, secretOf(prefix))
				place = strings.Replace(place, "¤", keys[len(keys)-1], 1)
			}
			lines.WriteString(place + "\n")
		}
		for _, miss := range misses {
			tail := secretOf(prefix)[len(prefix):]
			lines.WriteString("no_key = \"" + miss(prefix, tail) + "\"\n")
		}
	}
	lines.WriteString(strings.Repeat("sk_live_", 100) + "\n")
	return lines.String(), keys
}

// wantLeaks fails unless a scanner found each key, and nothing else.
func wantLeaks(t *testing.T, keys, found []string) {
	t.Helper()
	sorted := func(all []string) []string { return slices.Compact(slices.Sorted(slices.Values(all))) }
	if diff := cmp.Diff(sorted(keys), sorted(found)); diff != "" {
		t.Errorf("what was found is not what there is (-want +got)\n%s", diff)
	}
}

// TestGitleaksFindsKeys runs gitleaks with our rule over a file.
func TestGitleaksFindsKeys(t *testing.T) {
	gitleaks, err := filepath.Abs("../../.tools/bin/gitleaks")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(gitleaks); errors.Is(err, fs.ErrNotExist) {
		testenv.Missing(t, "there is no .tools/bin/gitleaks; bash .ci/run installs it, or: go -C .tools/gitleaks build -o ../bin/gitleaks github.com/zricethezav/gitleaks/v8")
	}
	dir := t.TempDir()
	text, keys := leaks(t)
	for name, content := range map[string]string{"rule.toml": scanRule(t, "gitleaks", nil, "--key-formats", leakFormats), "leaks/file": text} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	report := filepath.Join(dir, "report.json")
	out, err := exec.CommandContext(t.Context(), gitleaks, "dir", "--no-banner", "--exit-code=0", "--config="+filepath.Join(dir, "rule.toml"),
		"--report-format=json", "--report-path="+report, filepath.Join(dir, "leaks")).CombinedOutput()
	if err != nil {
		t.Fatalf("gitleaks: %v\n%s", err, out)
	}
	data, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var findings []struct{ Secret string }
	if err := json.Unmarshal(data, &findings); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range findings {
		found = append(found, f.Secret)
	}
	wantLeaks(t, keys, found)
}

// TestPatternsFindKeys runs the patterns of the scanners that are not at hand, as
// those document to use them.
func TestPatternsFindKeys(t *testing.T) {
	text, keys := leaks(t)
	find := func(t *testing.T, pattern string) (found []string) {
		t.Helper()
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found = append(found, match[1])
		}
		return found
	}
	t.Run("trufflehog", func(t *testing.T) {
		var config struct {
			Detectors []struct {
				Name     string
				Keywords []string
				Regex    map[string]string
			}
		}
		if err := yaml.Unmarshal([]byte(scanRule(t, "trufflehog", nil, "--key-formats", leakFormats)), &config); err != nil {
			t.Fatal(err)
		}
		if len(config.Detectors) != 1 || len(config.Detectors[0].Keywords) != 6 {
			t.Fatalf("the detectors are %+v", config.Detectors)
		}
		wantLeaks(t, keys, find(t, config.Detectors[0].Regex["secret"]))
	})
	t.Run("github", func(t *testing.T) {
		var fields map[string]string
		if err := yaml.Unmarshal([]byte(scanRule(t, "github", nil, "--key-formats", leakFormats)), &fields); err != nil {
			t.Fatal(err)
		}
		// What stands around a secret may be shared by two: each line is searched from
		// behind every secret that was found.
		pattern := regexp.MustCompile("(?:" + fields["before_secret"] + ")(" + fields["secret_format"] + ")(?:" + fields["after_secret"] + ")")
		var found []string
		for rest := text; ; {
			at := pattern.FindStringSubmatchIndex(rest)
			if at == nil {
				break
			}
			found = append(found, rest[at[2]:at[3]])
			rest = rest[at[3]:]
		}
		wantLeaks(t, keys, found)
	})
}
