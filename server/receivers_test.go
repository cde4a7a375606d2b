package server_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apikeys-dev/apikeys/client/hooks"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/servertest"
	"github.com/apikeys-dev/apikeys/server/servertest/testenv"
)

// packages is where .ci/receivers/run installs the npm packages.
const packages = "../.ci/receivers/node_modules"

// TestReceivers is what .ci/receivers/run runs. Each receiver of docs/receivers
// verifies what a server really delivers, and refuses what was tampered with; and
// what docs/webhooks.md says arrives is what arrives.
func TestReceivers(t *testing.T) {
	t.Parallel()
	if os.Getenv("RECEIVERS") == "" {
		t.Skip("it needs npm packages: bash .ci/receivers/run")
	}
	shown := readShown(t, "../docs/webhooks.md")
	s := servertest.Start(t)
	h := &hookCalls{s: s, rpc: apikeysv1.NewWebhooksServiceClient(s.Conn)}

	t.Run("what arrives", func(t *testing.T) { testArrivals(t, h, shown) })

	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../docs/receivers")); err != nil {
		t.Fatal(err)
	}
	svix, err := os.ReadFile("../.ci/receivers/receive-svix.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "receive-svix.mjs"), svix, 0o600); err != nil {
		t.Fatal(err)
	}
	installed, err := filepath.Abs(packages)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(installed, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for i, r := range []struct {
		file    string
		program string
		pkg     string // the npm package that it imports
	}{
		{"go", "go", ""},
		{"receive.mjs", "node", "standardwebhooks"},
		{"receive-crypto.mjs", "node", ""},
		{"receive-svix.mjs", "node", "svix"},
		{"receive.py", "python3", ""},
	} {
		t.Run(r.file, func(t *testing.T) {
			path := filepath.Join(dir, r.file)
			if _, err := os.Stat(path); err != nil {
				t.Fatalf("there is no such receiver: %v", err)
			}
			if _, err := exec.LookPath(r.program); err != nil {
				t.Skipf("%s is not installed", r.program)
			}
			if _, err := exec.LookPath("npm"); r.pkg != "" && err != nil {
				t.Skipf("npm is not installed, so neither is the package %s", r.pkg)
			}
			command := []string{r.program, path}
			if r.program == "go" {
				command = []string{filepath.Join(dir, "receiver")}
				build := exec.CommandContext(t.Context(), "go", "build", "-o", command[0], "../docs/receivers/go")
				if out, err := build.CombinedOutput(); err != nil {
					t.Fatalf("build it: %v\n%s", err, out)
				}
			}
			testReceiver(t, h, apikeysv1.WebhookFormat(i%4+1), command)
		})
	}
	t.Run("openssl", func(t *testing.T) { testOpenSSL(t, h, dir) })
}

// testReceiver runs a receiver: it verifies deliveries of the server, during a
// rotation too, and refuses all that is forged.
func testReceiver(t *testing.T, h *hookCalls, format apikeysv1.WebhookFormat, command []string) {
	// The first delivery goes elsewhere, so that there is one to tamper with.
	url, arrived := capture(t)
	hook := h.create(t, url+"/hook", format)
	id := hook.GetId()
	h.test(t, id)
	first := <-arrived

	address, received := startReceiver(t, command, hook.GetSecret())
	resend := func(a arrival) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/hook", bytes.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = a.header
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	if status := resend(first); status != http.StatusNoContent {
		t.Errorf("what the server sent is answered %d", status)
	}
	expect := func(id, kind string) {
		t.Helper()
		if got, want := <-received, "received "+id+" "+kind; got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	expect(first.header.Get(hooks.HeaderID), "webhook.test")
	for name, forged := range forgeries(t, first, hook.GetSecret()) {
		if status := resend(forged); status != http.StatusUnauthorized {
			t.Errorf("%s: answered %d", name, status)
		}
	}

	h.move(t, id, "http://"+address+"/hook")
	d := h.test(t, id)
	expect(d, "webhook.test")
	h.wait(t, d)
	if _, err := h.s.Keys.CreateApiKey(h.s.Context(t.Context()), &apikeysv1.CreateApiKeyRequest{Label: "Ünïcode <&>"}); err != nil {
		t.Fatal(err)
	}
	if line := <-received; !strings.HasSuffix(line, " api_key.created") {
		t.Errorf("it says %q", line)
	}
	// The old secret is good until the overlap ends.
	h.rotate(t, id, 3600)
	d = h.test(t, id)
	expect(d, "webhook.test")
	h.wait(t, d)
	h.remove(t, id)
}

// testOpenSSL runs the shell scripts on deliveries that were kept.
func testOpenSSL(t *testing.T, h *hookCalls, dir string) {
	testenv.Program(t, "openssl", "package openssl of Debian has it")
	url, arrived := capture(t)
	hook := h.create(t, url+"/hook", apikeysv1.WebhookFormat_WEBHOOK_FORMAT_STANDARD)
	h.test(t, hook.GetId())
	genuine := <-arrived
	script := func(name string, a arrival) (string, error) {
		var headers bytes.Buffer
		if err := a.header.Write(&headers); err != nil {
			t.Fatal(err)
		}
		kept := t.TempDir()
		for file, data := range map[string][]byte{"headers": headers.Bytes(), "body": a.body} {
			if err := os.WriteFile(filepath.Join(kept, file), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(dir, name))
		cmd.Dir, cmd.Env = kept, append(os.Environ(), "WEBHOOK_SECRET="+hook.GetSecret())
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := script("verify.sh", genuine); err != nil || out != "verified "+genuine.header.Get(hooks.HeaderID) {
		t.Errorf("verify.sh: %v: %s", err, out)
	}
	for name, forged := range forgeries(t, genuine, hook.GetSecret()) {
		if out, err := script("verify.sh", forged); !errors.As(err, new(*exec.ExitError)) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	if out, err := script("classic.sh", genuine); err != nil || out != genuine.header.Get(hooks.HeaderClassicSignature) {
		t.Errorf("classic.sh: %v: %s", err, out)
	}
	// Two signatures, and ours is the second.
	h.rotate(t, hook.GetId(), 3600)
	h.test(t, hook.GetId())
	if out, err := script("verify.sh", <-arrived); err != nil {
		t.Errorf("verify.sh after a rotation: %v: %s", err, out)
	}
	h.remove(t, hook.GetId())
}

// forgeries returns what nobody may take for a delivery, made of a real one.
func forgeries(t *testing.T, genuine arrival, text string) map[string]arrival {
	t.Helper()
	secret, err := hooks.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	other, err := hooks.NewSecret(nil)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*arrival)) arrival {
		a := arrival{genuine.header.Clone(), slices.Clone(genuine.body)}
		change(&a)
		return a
	}
	sent := func(at time.Time, by hooks.Secret) arrival {
		return with(func(a *arrival) {
			a.header.Set(hooks.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
			a.header.Set(hooks.HeaderSignature, hooks.Sign([]hooks.Secret{by}, a.header.Get(hooks.HeaderID), at, a.body))
		})
	}
	set := func(name, value string) arrival {
		return with(func(a *arrival) { a.header.Set(name, value) })
	}
	at, err := strconv.ParseInt(genuine.header.Get(hooks.HeaderTimestamp), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]arrival{
		"another body":      with(func(a *arrival) { a.body[len(a.body)/2] ^= 1 }),
		"a longer body":     with(func(a *arrival) { a.body = append(a.body, ' ') }),
		"no body":           with(func(a *arrival) { a.body = nil }),
		"another id":        set(hooks.HeaderID, "delivery_other"),
		"another timestamp": set(hooks.HeaderTimestamp, strconv.FormatInt(at+1, 10)),
		"no timestamp":      with(func(a *arrival) { a.header.Del(hooks.HeaderTimestamp) }),
		"no number":         set(hooks.HeaderTimestamp, "soon"),
		"no signature":      with(func(a *arrival) { a.header.Del(hooks.HeaderSignature) }),
		"another version":   set(hooks.HeaderSignature, strings.Replace(genuine.header.Get(hooks.HeaderSignature), "v1,", "v2,", 1)),
		"a wrong signature": set(hooks.HeaderSignature, "v1,"+base64.StdEncoding.EncodeToString(make([]byte, 32))),
		"an empty one":      set(hooks.HeaderSignature, "v1,"),
		"another secret":    sent(time.Now(), other),
		"an old delivery":   sent(time.Now().Add(-10*time.Minute), secret),
		"one of tomorrow":   sent(time.Now().Add(10*time.Minute), secret),
	}
}

// testArrivals compares what arrives with what docs/webhooks.md says arrives.
func testArrivals(t *testing.T, h *hookCalls, shown map[string]string) {
	url, arrived := capture(t)
	for number, name := range apikeysv1.WebhookFormat_name {
		if number == 0 {
			continue
		}
		name = strings.ToLower(strings.TrimPrefix(name, "WEBHOOK_FORMAT_"))
		hook := h.create(t, url+"/hook", apikeysv1.WebhookFormat(number))
		if _, err := h.s.Keys.CreateApiKey(h.s.Context(t.Context()), &apikeysv1.CreateApiKeyRequest{Label: "webhook tour"}); err != nil {
			t.Fatal(err)
		}
		got := <-arrived
		h.remove(t, hook.GetId())
		matchShown(t, name, shown[name], string(got.body))
		if name != "classic" {
			continue
		}
		var lines []string
		for line := range strings.Lines(shown["headers"]) {
			if name, _, ok := strings.Cut(line, ": "); ok && name != "Host" && name != "Content-Length" {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		var headers bytes.Buffer
		got.header.Del("Content-Length")
		if err := got.header.Write(&headers); err != nil {
			t.Fatal(err)
		}
		slices.Sort(lines)
		matchShown(t, "headers", strings.Join(lines, "\n"), headers.String())
	}
}

// differing are the values that differ from one delivery to the next.
var differing = []struct {
	value *regexp.Regexp
	form  string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d\.\d{3}`), "DAY${1}TIME"},
	{regexp.MustCompile(`sk_live_[0-9A-Za-z]{12}\.\.\.[0-9A-Za-z]{5}`), "MASK"},
	{regexp.MustCompile(`v1,[0-9A-Za-z+/=]{44}`), "SIGNATURE"},
	{regexp.MustCompile(`[0-9a-f]{64}`), "HEX"},
	{regexp.MustCompile(`(Timestamp: )\d{10}`), "${1}UNIX"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "HOST"},
	{regexp.MustCompile(`\s+`), ""},
}

// matchShown compares a text with what the page shows of it, where … stands for
// anything and white space for nothing.
func matchShown(t *testing.T, what, shown, got string) {
	t.Helper()
	for _, d := range differing {
		shown, got = d.value.ReplaceAllString(shown, d.form), d.value.ReplaceAllString(got, d.form)
	}
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(shown), "…", ".*") + "$"
	if shown == "" || !regexp.MustCompile(pattern).MatchString(got) {
		t.Errorf("%s: the page shows\n%s\nand there arrives\n%s", what, shown, got)
	}
}

// readShown returns the fences of a page that follow <!-- arrives NAME -->, each a
// part of a delivery, by their names.
func readShown(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	marked := regexp.MustCompile("(?sm)^<!-- arrives (\\S+) -->\n```[a-z]*\n(.*?)^```$")
	for _, m := range marked.FindAllStringSubmatch(string(text), -1) {
		shown[m[1]] = m[2]
	}
	return shown
}
