package chaostest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// The life of a key in the load.
const (
	poolSize = 20
	// afterlife is how long a key is verified on after its end, longer than a replica
	// may take to hear of it.
	afterlife = 3 * time.Second
)

// knownKey is a key that the load works with.
type knownKey struct {
	id, organization string

	mu      sync.Mutex
	secrets []string // by their numbers; empty where nobody was told
	over    time.Duration
}

// reserve returns the number of the next secret.
func (k *knownKey) reserve() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.secrets = append(k.secrets, "")
	return len(k.secrets) - 1
}

func (k *knownKey) set(number int, secret string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.secrets[number] = secret
}

// pick returns one of the secrets, mostly one of the newest two.
func (k *knownKey) pick(random *rand.Rand) (number int, secret string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.secrets)
	number = n - 1 - random.IntN(min(n, 2))
	if random.IntN(6) == 0 {
		number = random.IntN(n)
	}
	return number, k.secrets[number]
}

// end says that the key is gone, so that it leaves the pool in a while.
func (k *knownKey) end(at time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over == 0 {
		k.over = at
	}
}

// keyPool has the keys that are worked with.
type keyPool struct {
	mu   sync.Mutex
	list []*knownKey
	made int
}

// pick returns a key, or nil where one is to be made.
func (p *keyPool) pick(now time.Duration, random *rand.Rand) *knownKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.list[:0]
	for _, k := range p.list {
		k.mu.Lock()
		if k.over == 0 || now < k.over+afterlife {
			kept = append(kept, k)
		}
		k.mu.Unlock()
	}
	p.list = kept
	if len(p.list) < poolSize {
		return nil
	}
	return p.list[random.IntN(len(p.list))]
}

// any returns a key, or nil where there is none.
func (p *keyPool) any(random *rand.Rand) *knownKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) == 0 {
		return nil
	}
	return p.list[random.IntN(len(p.list))]
}

func (p *keyPool) add(k *knownKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, k)
	p.made++
}

// change makes one change, or reads a key, on one of the replicas. Half of the changes
// are made while the key is verified there, and after each the key is verified at once:
// there the change is in force.
func (l *load) change(client int, random *rand.Rand) {
	r := l.any(random)
	k := l.pool.pick(l.history.now(), random)
	if k == nil {
		l.create(r, client, random)
		return
	}
	done := make(chan struct{})
	var around sync.WaitGroup
	if random.IntN(2) == 0 {
		for i := range 2 {
			own := rand.New(rand.NewPCG(random.Uint64(), uint64(i)))
			around.Go(func() {
				for {
					l.verify(r, k, client, own)
					select {
					case <-done:
						return
					case <-time.After(time.Duration(own.IntN(3)) * time.Millisecond):
					}
				}
			})
		}
	}
	switch n := random.IntN(100); {
	case n < 35:
		l.update(r, k, client, random.IntN(2) == 0)
	case n < 60:
		l.rotate(r, k, client, random.IntN(2) == 0)
	case n < 80:
		l.revoke(r, k, client)
	case n < 90:
		l.delete(r, k, client)
	default:
		l.get(r, k, client)
	}
	l.verify(r, k, client, random)
	close(done)
	around.Wait()
}

// changeHot changes one key again and again, through all replicas, and verifies it all
// the while, so that reads of the key and its changes meet. Now and then it is revoked,
// and another takes its place.
func (l *load) changeHot(client int, random *rand.Rand) {
	k := l.hot.Load()
	if k == nil {
		if k = l.create(l.any(random), client, random); k != nil {
			l.hot.CompareAndSwap(nil, k)
		}
		return
	}
	r := l.any(random)
	var around sync.WaitGroup
	for _, other := range l.replicas {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		around.Go(func() {
			for range 3 {
				l.pause(time.Duration(own.IntN(60)) * time.Millisecond)
				l.verify(other, k, client, own)
			}
		})
	}
	switch n := random.IntN(100); {
	case n < 75:
		l.update(r, k, client, random.IntN(3) > 0)
	case n < 97:
		l.rotate(r, k, client, random.IntN(2) == 0)
	default:
		l.hot.CompareAndSwap(k, nil)
		l.revoke(r, k, client)
	}
	l.verify(r, k, client, random)
	around.Wait()
}

// create makes a key for the pool, and returns nil where that has failed.
func (l *load) create(r *replica, client int, random *rand.Rand) *knownKey {
	k := &knownKey{organization: organizations[random.IntN(len(organizations))]}
	k.reserve()
	o := &operation{Kind: "create", Client: client, Enabled: true}
	l.call(r, o, k.organization, changeTimeout, func(ctx context.Context, o *operation) error {
		resp, err := r.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "chaos"})
		k.id, o.Key = resp.GetApiKey().GetId(), resp.GetApiKey().GetId()
		k.set(0, resp.GetApiKey().GetSecret())
		o.Masked = maskOf(resp.GetApiKey().GetSecret())
		return err
	})
	if o.Outcome != answered {
		return nil
	}
	l.pool.add(k)
	return k
}

// maskOf returns a secret as it is shown after its creation.
func maskOf(secret string) string {
	if secret == "" {
		return ""
	}
	prefix := strings.LastIndexByte(secret, '_') + 1
	return secret[:prefix+12] + "..." + secret[len(secret)-5:]
}

func (l *load) update(r *replica, k *knownKey, client int, enabled bool) {
	o := &operation{Kind: "update", Client: client, Key: k.id, Enabled: enabled}
	l.call(r, o, k.organization, changeTimeout, func(ctx context.Context, o *operation) error {
		// The label makes each update a change, and its event known.
		o.Label = fmt.Sprintf("update %d of %d", o.Call.Nanoseconds(), client)
		_, err := r.keys.UpdateApiKey(ctx, &apikeysv1.UpdateApiKeyRequest{
			Id: k.id, ApiKey: &apikeysv1.ApiKey{Label: o.Label, Enabled: enabled},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label", "enabled"}},
		})
		return err
	})
}

func (l *load) rotate(r *replica, k *knownKey, client int, overlap bool) {
	o := &operation{Kind: "rotate", Client: client, Key: k.id, Secret: k.reserve(), Overlap: overlap}
	l.call(r, o, k.organization, changeTimeout, func(ctx context.Context, o *operation) error {
		seconds := int32(0)
		if overlap {
			seconds = 3600
		}
		resp, err := r.keys.RotateApiKey(ctx, &apikeysv1.RotateApiKeyRequest{Id: k.id, OverlapSeconds: proto.Int32(seconds), EndPrevious: true})
		k.set(o.Secret, resp.GetApiKey().GetSecret())
		o.Masked = maskOf(resp.GetApiKey().GetSecret())
		return err
	})
}

func (l *load) revoke(r *replica, k *knownKey, client int) {
	o := &operation{Kind: "revoke", Client: client, Key: k.id}
	l.call(r, o, k.organization, changeTimeout, func(ctx context.Context, _ *operation) error {
		_, err := r.keys.RevokeApiKey(ctx, &apikeysv1.RevokeApiKeyRequest{Id: k.id})
		return err
	})
	k.end(l.history.now())
}

func (l *load) delete(r *replica, k *knownKey, client int) {
	o := &operation{Kind: "delete", Client: client, Key: k.id}
	l.call(r, o, k.organization, changeTimeout, func(ctx context.Context, _ *operation) error {
		_, err := r.keys.DeleteApiKey(ctx, &apikeysv1.DeleteApiKeyRequest{Id: k.id})
		return err
	})
	k.end(l.history.now())
}

// get reads a key from storage.
func (l *load) get(r *replica, k *knownKey, client int) {
	o := &operation{Kind: "get", Client: client, Key: k.id}
	l.call(r, o, k.organization, changeTimeout, func(ctx context.Context, o *operation) error {
		resp, err := r.keys.GetApiKey(ctx, &apikeysv1.GetApiKeyRequest{Id: k.id})
		o.Code = wordOf("API_KEY_STATE_", resp.GetApiKey().GetState().String())
		return err
	})
}

func wordOf(prefix, name string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

// verifyAny verifies one of the keys.
func (l *load) verifyAny(r *replica, client int, random *rand.Rand) {
	if k := l.pool.any(random); k != nil {
		l.verify(r, k, client, random)
	}
}

// verify verifies one of the secrets of a key.
func (l *load) verify(r *replica, k *knownKey, client int, random *rand.Rand) {
	number, secret := k.pick(random)
	if secret == "" {
		return
	}
	o := &operation{Kind: "verify", Client: client, Key: k.id, Secret: number}
	l.call(r, o, k.organization, verifyTimeout, func(ctx context.Context, o *operation) error {
		resp, err := r.keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secret})
		o.Code = wordOf("VERIFICATION_CODE_", resp.GetCode().String())
		return err
	})
}
