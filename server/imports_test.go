package server_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/apikeys-dev/apikeys/"

// edges lists what each package may import of this module, from the bottom up; what a
// row does not name may not be imported, so that imports point down only.
var edges = map[string][]string{
	"gen":                              {},
	"gen/apikeys/v1":                   {},
	"server/masked":                    {},
	"server/outage":                    {},
	"server/broken":                    {}, // every package may ask it
	"server/measure":                   {},
	"server/apikey":                    {"server/masked"},
	"server/keyring":                   {"server/apikey", "server/masked"},
	"server/operator":                  {"server/apikey"},
	"server/identity":                  {"server/apikey", "server/measure", "server/operator", "server/outage"},
	"client/hooks":                     {},
	"client":                           {"gen/apikeys/v1", "server/apikey", "server/masked"}, // no more of the server
	"server/connection":                {},
	"server/feed":                      {"server/apikey", "server/keyring", "server/outage"},
	"server/meter":                     {"server/apikey", "server/outage"},
	"server/verify":                    {"server/apikey", "server/measure", "server/meter", "server/keyring", "server/feed"},
	"server/webhook":                   {"server/apikey", "server/masked", "client/hooks"},
	"server/wire/json":                 {"server/apikey", "gen/apikeys/v1"},
	"server/wire":                      {"server/operator", "server/apikey", "server/webhook", "server/wire/json", "gen/apikeys/v1"},
	"server/deliver":                   {"server/apikey", "server/measure", "server/webhook", "server/wire", "server/wire/json", "server/feed", "client/hooks", "gen/apikeys/v1", "server/outage"},
	"server/authn":                     {"server/identity", "server/operator", "server/outage", "server/masked", "server/apikey", "server/keyring", "server/verify"},
	"server/store":                     {"server/operator", "server/apikey", "server/keyring", "server/masked", "server/outage", "server/webhook", "server/wire", "server/store/migrations", "ent"},
	"server/store/migrations":          {},
	"server/store/migrations/generate": {"ent", "server/store/migrations"},
	"server/api":                       {"server/operator", "server/apikey", "server/measure", "server/keyring", "client/hooks", "server/authn", "server/connection", "server/meter", "server/verify", "server/feed", "server/store", "server/webhook", "server/wire", "server/wire/json", "gen/apikeys/v1"},
	"server/metrics":                   {"server/api", "server/deliver", "server/identity", "server/measure", "server/meter", "server/store", "server/verify"},
	"server/gate":                      {"server/apikey", "server/authn", "server/connection", "server/masked", "server/outage", "server/verify", "server/wire/json"},
	"server/reference":                 {},
	"server/rest":                      {"server/reference", "server/apikey", "server/authn", "server/connection", "server/wire/json", "gen/apikeys/v1"},
	"server":                           {"gen", "server/reference", "server/identity", "server/operator", "server/apikey", "server/metrics", "server/keyring", "server/masked", "server/authn", "server/connection", "server/meter", "server/verify", "server/feed", "server/store", "server/webhook", "server/deliver", "server/wire", "server/api", "server/rest", "server/gate", "gen/apikeys/v1", "server/outage"},
	"server/openapi":                   {"server/apikey", "server/webhook", "server/wire/json", "server/deliver", "server/rest", "client/hooks", "gen/apikeys/v1"},
	"server/openapi/generate":          {"server/openapi"},
	"server/chaostest":                 {}, // has tests alone
	"server/servertest/clock":          {}, // tests of every package use it
	"server/servertest/logtest":        {}, // likewise
	"server/servertest/testenv":        {}, // likewise
	"server/servertest/network":        {}, // likewise
	"server/servertest/issuer":         {}, // likewise
	"server/servertest/described":      {"gen"},
	"server/servertest":                {"server/servertest/described", "server/servertest/logtest", "server/servertest/testenv", "server/masked", "server", "gen/apikeys/v1"},
	// wire/json too: what it prints as JSON is what REST sends, to the byte.
	"cmd/apikeys/internal/contexts": {},
	"cmd/apikeys/internal/device":   {},
	"cmd/apikeys/internal/shell":    {},
	"cmd/apikeys/internal/output":   {"server/apikey"},
	"cmd/apikeys/internal/pending":  {},
	"cmd/apikeys":                   {"cmd/apikeys/internal/contexts", "cmd/apikeys/internal/device", "cmd/apikeys/internal/shell", "cmd/apikeys/internal/output", "cmd/apikeys/internal/pending", "client", "server/identity", "server/masked", "server", "server/apikey", "client/hooks", "server/webhook", "server/deliver", "server/wire/json", "gen/apikeys/v1"},
	"docs/receivers/go":             {"client/hooks"},
	"docs/protect/go":               {"client"},
	"docs/protect/chi":              {"client"},
	"docs/protect/grpc":             {"client"},
}

// TestImports fails on an import that points up or sideways, and on a package that
// the table lacks.
func TestImports(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		paths := strings.Fields(line)
		pkg := strings.TrimPrefix(paths[0], module)
		if pkg == "ent" || strings.HasPrefix(pkg, "ent/") || pkg == "proto" {
			continue
		}
		allowed, ok := edges[pkg]
		if !ok {
			t.Errorf("%s is not in the table of edges; add what it may import", pkg)
			continue
		}
		for _, path := range paths[1:] {
			imported, ours := strings.CutPrefix(path, module)
			if strings.HasPrefix(imported, "ent/") {
				imported = "ent"
			}
			if ours && imported != "server/broken" && !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s, which the table of edges does not allow", pkg, imported)
			}
		}
	}
}
