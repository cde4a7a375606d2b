package verify

import (
	"fmt"
	"testing"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// A read under way keeps what it found of the keys that were not dropped meanwhile,
// or were dropped for a change that it saw.
func TestDropOfAnotherKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		drop  func(v *harness, keys *fakeKeys, k apikey.Key)
		reads int // of the key in all, after one more call
	}{
		{"no drop", func(*harness, *fakeKeys, apikey.Key) {}, 1},
		{"another key", func(v *harness, keys *fakeKeys, _ apikey.Key) { keys.change(v, apikey.Key{ID: "api_key_other"}) }, 1},
		{"for a change that was seen", func(v *harness, keys *fakeKeys, k apikey.Key) { v.Drop([]string{k.ID}, keys.position) }, 1},
		{"for a later change", func(v *harness, keys *fakeKeys, k apikey.Key) { keys.change(v, k) }, 2},
		{"for a later change, then for an earlier one", func(v *harness, keys *fakeKeys, k apikey.Key) {
			keys.change(v, k)
			v.Drop([]string{k.ID}, 0)
		}, 2},
		{"with too many others to remember", func(v *harness, keys *fakeKeys, k apikey.Key) {
			keys.change(v, k)
			for i := range maxDrops {
				v.Drop([]string{fmt.Sprint("api_key_", i)}, 0)
			}
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			keys := newFakeKeys()
			v := newVerifier(t, keys, nil)
			k, secret := keys.create(t, apikey.Key{}, 0)
			held := keys.hold()
			first := make(chan apikey.Code)
			go func() { first <- ask(t, v, Request{Secret: secret}).Code }()
			<-held.reached
			keys.unhold()
			c.drop(v, keys, k)
			close(held.open)
			if got := <-first; got != apikey.CodeValid {
				t.Errorf("the first call: %s", got)
			}
			wantCode(t, v, Request{Secret: secret}, apikey.CodeValid)
			if n := keys.readCount(); n != c.reads {
				t.Errorf("%d reads, want %d", n, c.reads)
			}
		})
	}
}

// A drop finds every entry of a key, whichever of its secrets they were found by and
// whatever has been cached for them before, and nothing is left of what was dropped.
func TestDropFindsAllEntries(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newVerifier(t, keys, nil)
	k, older := keys.create(t, apikey.Key{}, 1)
	newer := newSecret(t)
	k.Previous, k.PreviousExpiresAt = k.Secret, noon.AddDate(1000, 0, 0)
	k.Secret = apikey.StoredSecret{Hash: keys.peppers.Hash(0, newer), Mask: "mask"}
	keys.change(v, k)
	other, secret := keys.create(t, apikey.Key{}, 0)
	for range 3 {
		for _, s := range []string{older, newer, secret} {
			wantCode(t, v, Request{Secret: s}, apikey.CodeValid)
		}
	}
	if n, indexed := v.cache.entries.EstimatedSize(), len(v.cache.index.byID); n != 3 || indexed != 2 {
		t.Errorf("%d entries of %d keys", n, indexed)
	}
	k.Enabled = false
	keys.change(v, k)
	for _, s := range []string{older, newer} {
		wantCode(t, v, Request{Secret: s}, apikey.CodeDisabled)
	}
	v.Drop([]string{k.ID, other.ID, "nobody"}, 0)
	c := v.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.entries.EstimatedSize(); n != 0 || len(c.index.byID) != 0 || len(c.newest) != 0 || len(c.queue) != 0 || c.reads.Len() != 0 {
		t.Errorf("%d entries, %d keys, %d drops, %d reads are left", n, len(c.index.byID), len(c.newest), c.reads.Len())
	}
}

// However many keys change while reads are under way, what is remembered of it is
// bounded, and forgotten when the reads have ended.
func TestDropsAreBounded(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys()
	v := newVerifier(t, keys, nil)
	_, secret := keys.create(t, apikey.Key{}, 0)
	held := keys.hold()
	done := make(chan apikey.Code)
	go func() { done <- ask(t, v, Request{Secret: secret}).Code }()
	<-held.reached
	keys.unhold()
	for i := range 3 * maxDrops {
		v.Drop([]string{fmt.Sprint("api_key_", i)}, int64(i))
	}
	remembered := func() int {
		v.cache.mu.Lock()
		defer v.cache.mu.Unlock()
		return max(len(v.cache.newest), len(v.cache.queue))
	}
	if n := remembered(); n > maxDrops || n == 0 {
		t.Errorf("%d drops are remembered", n)
	}
	// A read that begins now does not care for them, nor does it end them.
	_, second := keys.create(t, apikey.Key{}, 0)
	wantCode(t, v, Request{Secret: second}, apikey.CodeValid)
	if remembered() == 0 {
		t.Error("the drops were forgotten while the first read is under way")
	}
	close(held.open)
	<-done
	if n := remembered(); n != 0 {
		t.Errorf("%d drops are left", n)
	}
}

// What an answer says of a key is encoded once, when the key is read.
func TestEncode(t *testing.T) {
	t.Parallel()
	keys, encoded := newFakeKeys(), 0
	v := newHarness(t, keys, Config{Encode: func(k *apikey.Key) string { encoded++; return "of " + k.Label }})
	_, secret := keys.create(t, apikey.Key{Label: "a label", Metadata: map[string]string{"a": "b"}, OrganizationID: "org_a"}, 0)
	for range 3 {
		got := ask(t, v, Request{Secret: secret, Organization: "org_a", Cost: 1})
		if got.Encoded != "of a label" || got.Key.Label != "a label" || got.Key.Metadata["a"] != "b" || got.Code != apikey.CodeValid {
			t.Errorf("%s, %q, %+v", got.Code, got.Encoded, got.Key)
		}
	}
	// Of a key of another organization it tells no more than the key itself would.
	if got := ask(t, v, Request{Secret: secret, Organization: "org_b", Cost: 1}); got.Encoded != "" || got.Code != apikey.CodeNotFound {
		t.Errorf("%s, %q", got.Code, got.Encoded)
	}
	if encoded != 1 {
		t.Errorf("encoded %d times", encoded)
	}
}
