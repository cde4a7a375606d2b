package verify

import (
	"context"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peppers are those of every test: the first hashes new secrets.
func peppers() *apikey.Peppers {
	return apikey.NewPeppers([]apikey.NamedKey{
		{ID: "new", Key: []byte("the newest pepper of these tests")},
		{ID: "old", Key: []byte("an older pepper of these tests..")},
	})
}

// fakeKeys is a store in memory whose reads and writes tests can hold up.
type fakeKeys struct {
	peppers *apikey.Peppers

	mu       sync.Mutex
	keys     []*apikey.Key
	byHash   map[apikey.Hash]*apikey.Key
	position int64
	reads    int
	running  int // reads under way
	most     int // of running, ever
	totals   map[string]int64
	// read, where it is set, is called in the middle of a read, after the row was
	// read and before it is returned.
	read func(ctx context.Context) error
	// add, where it is set, decides how many of the counts are stored.
	add func(counts []apikey.UsageCount) (int, error)
}

var _ Keys = (*fakeKeys)(nil)

func newFakeKeys() *fakeKeys {
	return &fakeKeys{peppers: peppers(), byHash: make(map[apikey.Hash]*apikey.Key), totals: make(map[string]int64)}
}

// add completes k, stores it and returns it with its secret.
func (f *fakeKeys) addKey(t testing.TB, k apikey.Key, pepper int) (*apikey.Key, string) {
	t.Helper()
	secret := newSecret(t)
	k.ID = apikey.NewID(apikey.IDPrefix)
	k.Enabled = true
	k.Secret = apikey.StoredSecret{Hash: f.peppers.Hash(pepper, secret), Mask: "mask"}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys = append(f.keys, &k)
	f.byHash[k.Secret.Hash] = &k
	return &k, secret
}
