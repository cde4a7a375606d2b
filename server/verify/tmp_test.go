package verify
import ("context";"testing";"time";"github.com/apikeys-dev/apikeys/server/apikey")
func newSecret(t testing.TB) string { s, err := apikey.NewSecret(apikey.ModeLive, nil); if err!=nil {t.Fatal(err)}; return s.Reveal() }
func (f *fakeKeys) add2() {}
func newVerifier(t testing.TB, k Keys, now func() time.Time) *Verifier { v, err := New(Config{Keys:k, Peppers: peppers(), Now: now}); if err!=nil {t.Fatal(err)}; return v }
func (f *fakeKeys) KeyBySecret(ctx context.Context, hs []apikey.Hash) (apikey.Key,int64,error) { for _, h := range hs { if k := f.byHash[h]; k != nil { return *k, f.position, nil } }; return apikey.Key{}, 0, apikey.ErrNotFound }
func (f *fakeKeys) AddUsage(ctx context.Context, c []apikey.UsageCount) (int, error) { return len(c), nil }
