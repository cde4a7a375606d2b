package keyring

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

const testSecret = "sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2LOcWk"

// The vector is the second of RFC 4231.
func TestPeppersHash(t *testing.T) {
	t.Parallel()
	p := NewPeppers(NewKey("edge", "Jefe"), NewKey("new", "Jefe"), NewKey("old", "other"))
	const text, want = "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100 {
				h := p.Hash(0, text)
				if hex.EncodeToString(h[:]) != want || p.Hash(1, text) == h {
					t.Errorf("Hash = %x", h)
				}
			}
		})
	}
	group.Wait()
	if diff := cmp.Diff([]apikey.Hash{p.Hash(0, text), p.Hash(1, text)}, p.Hashes(text)); diff != "" || p.Len() != 2 {
		t.Error(diff)
	}
	p.Hash(0, strings.Repeat("x", 10*apikey.MaxSecretLength)) // longer than its buffer
}

// What is kept of a secret is its hash under the newest pepper and under the edge
// key, which is another key.
func TestStored(t *testing.T) {
	t.Parallel()
	secret, _ := apikey.ParseSecret(testSecret)
	p := NewPeppers(NewKey("edge", "third"), NewKey("new", "first"), NewKey("old", "second"))
	under := func(key string) apikey.Hash { return NewPeppers(NewKey("", ""), NewKey("", key)).Hash(0, testSecret) }
	want := apikey.StoredSecret{Hash: under("first"), PepperID: "new", EdgeHash: under("third"), Mask: secret.Mask()}
	if diff := cmp.Diff(want, p.Stored(secret)); diff != "" {
		t.Error(diff)
	}
}

// Nothing that formats, encodes or logs a key shows it.
func TestNothingPrintsKeys(t *testing.T) {
	t.Parallel()
	const plain = "PEPPERPEPPERPEPPERPEPPERPEPPER32"
	key := NewKey("pepper_1", plain)
	peppers := NewPeppers(key, key)
	peppers.Hash(0, "") // so that the pool holds something
	sealer, err := NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	ring := &Keyring{[]Key{key}, []Key{key}, []Key{key}, []Key{key}}
	for name, value := range map[string]any{
		"key": key, "keys": []Key{key}, "pointer": &key, "peppers": peppers, "sealer": sealer, "keyring": ring, "keyring itself": *ring,
	} {
		var shown strings.Builder
		for _, verb := range "vsqxXdtbcoOeEfFgGUTp" {
			for _, flags := range []string{"", "+", "#", " ", "#+", "060.60"} {
				fmt.Fprintf(&shown, "%"+flags+string(verb)+"\n", value)
			}
		}
		text, _ := json.Marshal(value)
		shown.Write(text)
		for _, h := range []slog.Handler{slog.NewTextHandler(&shown, nil), slog.NewJSONHandler(&shown, nil)} {
			slog.New(h).Info("said", "value", value, "group", slog.GroupValue(slog.Any("value", value)))
		}
		for form, text := range map[string]string{
			"text": plain, "hex": fmt.Sprintf("%x", plain), "HEX": fmt.Sprintf("%X", plain),
			"spaced hex": fmt.Sprintf("% x", plain), "numbers": strings.Trim(fmt.Sprint([]byte(plain)), "[]"),
		} {
			if strings.Contains(shown.String(), text) {
				t.Errorf("%s shows the key as %s", name, form)
			}
		}
	}
}
