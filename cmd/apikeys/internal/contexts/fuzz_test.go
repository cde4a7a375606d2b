package contexts

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const typed = "typed-where-none-belongs"

// Any file of contexts is taken, or refused in one line that repeats nothing of it. What
// is taken stays so when another context is written beside it.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"", "current: a", "contexts: {a: {address: \"h:1\", tls: true}}", "contexts: {a: ~}", "contexts: {\"a b\": {}}", "contexts: []", "contexts: {a: {token: " + typed + "}}", "contexts: {a: {tls: " + typed + "}}",
		"contexts: {a: &x {address: y}, b: *x}", "contexts: {a: {<<: {address: y}}}", "current: [" + typed + "]", "{", "---\n---", "\x00", "contexts: {a: {organization: \"\\u0085 x\"}}", "contexts: {1: {address: 0x10}}", "current: \"\\U0001f600\\n\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := Dir{Path: t.TempDir()}
		if err := os.WriteFile(d.ConfigFile(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := d.Load()
		if err != nil {
			message := strings.ReplaceAll(err.Error(), d.Path, "")
			if strings.Contains(message, "\n") || len(message) > 500 || strings.Contains(message, typed) {
				t.Errorf("%q is refused by %q", text, message)
			}
			return
		}
		if len(before.Contexts) > MaxContexts {
			t.Errorf("%d contexts", len(before.Contexts))
		}
		for _, name := range before.Names() {
			if err := CheckName(name); err != nil || before.Contexts[name] == nil {
				t.Errorf("the context %q: %v", name, err)
			}
		}
		const added = "added-to-the-others"
		if err := d.Update(func(f *File) error {
			f.Contexts[added] = &Context{Address: "h:1"}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		after, err := d.Load()
		if err != nil {
			t.Fatalf("%q cannot be read when it was written: %v", text, err)
		}
		delete(after.Contexts, added)
		delete(before.Contexts, added)
		if before.Current != after.Current || len(before.Contexts)+len(after.Contexts) > 0 && !reflect.DeepEqual(before.Contexts, after.Contexts) {
			t.Errorf("%q: %+v became %+v", text, before, after)
		}
	})
}

// Any file of credentials holds those that were stored in it, or is refused without a
// word of it.
func FuzzCredentials(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"a":"{\"token\":\"t\"}"}`, `{"a":"` + typed + `"}`, `{"a":{"token":"` + typed + `"}}`, `{"a":1}`, `[]`, `{"a":"{\"token\":\"\"}"}`, `{"a":"x","a":"y"}`, `null`, `{"a":"{\"token\":\"t\",\"expires_at\":\"` + typed + `\"}"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := Dir{Path: t.TempDir()}
		path := filepath.Join(d.Path, "credentials")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		stored := &Context{Credential: InFile}
		before, err := d.Credential("a", stored)
		switch {
		case err == nil && before.Token == "":
			t.Errorf("%q has an empty token", text)
		case err != nil && !errors.Is(err, ErrNoCredential):
			message := strings.ReplaceAll(err.Error(), d.Path, "")
			if strings.Contains(message, "\n") || strings.Contains(message, typed) {
				t.Errorf("%q is refused by %q", text, message)
			}
		}
		want := &Credential{Token: "t", ExpiresAt: time.Unix(1_800_000_000, 0).UTC()}
		if _, _, err := d.SetCredential("b", want, InFile); err != nil {
			if before != nil {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if got, err := d.Credential("b", stored); err != nil || *got != *want {
			t.Errorf("%q: stored %+v: %v", text, got, err)
		}
		if after, err := d.Credential("a", stored); before != nil && (err != nil || !after.ExpiresAt.Equal(before.ExpiresAt) || after.Token != before.Token || after.RefreshToken != before.RefreshToken) {
			t.Errorf("%q: %+v became %+v: %v", text, before, after, err)
		}
	})
}
