package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
)

const monitoring = "../deploy/monitoring/"

// expressions returns what the dashboard and the alerts ask Prometheus for, by where it
// stands. The variables of the dashboard are replaced.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(readFile(t, monitoring+"dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", "apikeys", "$instance", ".*")
	for _, p := range dashboard.Panels {
		for i, target := range p.Targets {
			all[fmt.Sprintf("panel %s, %d", p.Title, i)] = variables.Replace(target.Expr)
		}
	}
	panels := len(all)
	for _, rule := range alerts(t) {
		all["alert "+rule.Alert] = rule.Expr
	}
	if panels == 0 || len(all) == panels {
		t.Fatal("the dashboard or the alerts ask for nothing")
	}
	return all
}

// alert is a rule of alerts.yaml.
type alert struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) (rules []alert) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal(readFile(t, monitoring+"alerts.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// metricNames finds the names of metrics in an expression.
var metricNames = regexp.MustCompile(`\b(?:apikeys|go|process)_[a-z0-9_]+`)

// Each metric that the dashboard and the alerts name exists.
func TestMonitoringNamesMetrics(t *testing.T) {
	t.Parallel()
	families := scrape(t, servertest.Start(t, withOps))
	for where, expr := range expressions(t) {
		names := metricNames.FindAllString(expr, -1)
		if len(names) == 0 && !strings.HasPrefix(expr, "up{") {
			t.Errorf("%s names no metric: %s", where, expr)
		}
		for _, name := range names {
			base := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if trimmed, ok := strings.CutSuffix(name, suffix); ok && families[trimmed].GetType() == dto.MetricType_HISTOGRAM {
					base = trimmed
				}
			}
			if families[base] != nil {
				continue
			}
			if os.Getenv("APIKEYS_TEST_DATABASE") == "postgres" && name == "apikeys_database_file_bytes" {
				continue // There are no files.
			}
			t.Errorf("%s asks for %s, which no scrape has", where, name)
		}
	}
}

// headings matches the headings of a page.
var headings = regexp.MustCompile(`(?m)^#+ (.+)$`)

// Each alert says how bad it is, what it means, and where it is written what to do.
func TestAlertsHaveRunbooks(t *testing.T) {
	t.Parallel()
	pages := make(map[string]map[string]bool)
	for _, rule := range alerts(t) {
		if !slices.Contains([]string{"info", "warning", "critical"}, rule.Labels["severity"]) || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s: %v %v", rule.Alert, rule.Labels, rule.Annotations)
		}
		page, anchor, _ := strings.Cut(rule.Annotations["runbook_url"], "#")
		if pages[page] == nil {
			pages[page] = make(map[string]bool)
			for _, h := range headings.FindAllStringSubmatch(string(readFile(t, "../"+page)), -1) {
				slug := strings.ReplaceAll(strings.ToLower(h[1]), " ", "-")
				pages[page][regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(slug, "")] = true
			}
		}
		if !pages[page][anchor] {
			t.Errorf("%s: %s has no heading %s", rule.Alert, page, anchor)
		}
	}
}

// metricsTable returns the table of docs/metrics.md as a scrape has it.
func metricsTable(families map[string]*dto.MetricFamily) string {
	var table strings.Builder
	table.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if !strings.HasPrefix(name, "apikeys_") {
			continue
		}
		f := families[name]
		labels := make(map[string]bool)
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels["`"+l.GetName()+"`"] = true
			}
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()),
			strings.Join(slices.Sorted(maps.Keys(labels)), ", "), f.GetHelp())
	}
	return table.String()
}

// docs/metrics.md has each metric of a scrape, and no other. Where it does not, the test
// prints the table that it should have.
func TestMetricsPage(t *testing.T) {
	t.Parallel()
	if os.Getenv("APIKEYS_TEST_DATABASE") == "postgres" {
		t.Skip("the page has the metrics of the files of SQLite")
	}
	table := metricsTable(scrape(t, servertest.Start(t, withOps)))
	if !strings.Contains(string(readFile(t, "../docs/metrics.md")), "\n\n"+table+"\n") {
		t.Errorf("docs/metrics.md should have this table:\n%s", table)
	}
}

// promtool runs Prometheus's tool, or skips the test where it is not installed.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	path := testenv.Program(t, "promtool", "package prometheus of Debian has it")
	command := exec.CommandContext(t.Context(), path, args...)
	command.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, &out)
	}
}

func TestPromtool(t *testing.T) {
	t.Parallel()
	t.Run("metrics", func(t *testing.T) { promtool(t, scrapeText(t, servertest.Start(t, withOps)), "check", "metrics") })
	t.Run("alerts", func(t *testing.T) { promtool(t, "", "check", "rules", monitoring+"alerts.yaml") })
	t.Run("tests of alerts", func(t *testing.T) { promtool(t, "", "test", "rules", monitoring+"alerts_test.yaml") })
	t.Run("configuration", func(t *testing.T) { promtool(t, "", "check", "config", monitoring+"prometheus.yml") })
	t.Run("dashboard", func(t *testing.T) {
		rules := "groups:\n- name: dashboard\n  rules:\n"
		all := expressions(t)
		for i, where := range slices.Sorted(maps.Keys(all)) {
			text, err := json.Marshal(all[where])
			if err != nil {
				t.Fatal(err)
			}
			rules += fmt.Sprintf("  - record: dashboard:e%d\n    expr: %s\n", i, text)
		}
		path := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		promtool(t, "", "check", "rules", path)
	})
}
