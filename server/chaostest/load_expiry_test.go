package chaostest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// expireAfter is how long the secrets that the load lets expire work.
const expireAfter = 2 * time.Second

// expire makes a key whose secret ends in a while, by its expiry or by the overlap of a
// rotation, and has it verified through all replicas, before and after.
func (l *load) expire(client int, random *rand.Rand) {
	made, r := &operation{Kind: "expire", Client: client}, l.any(random)
	var secret string
	l.call(r, made, organizations[0], changeTimeout, func(ctx context.Context, o *operation) error {
		o.Expires = l.history.now() + expireAfter
		resp, err := r.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "expires", ExpiresAt: timestamppb.New(l.history.began.Add(o.Expires))})
		if status.Code(err) == codes.InvalidArgument && l.history.now() > o.Expires-clockSlack {
			return status.Error(codes.Canceled, "it took longer than the key was to live")
		}
		o.Key, secret = resp.GetApiKey().GetId(), resp.GetApiKey().GetSecret()
		return err
	})
	if made.Outcome == answered {
		l.verifyUntil(made, secret, client, random)
	}
}

// overlap does the same with a secret that a rotation lets work on.
func (l *load) overlap(client int, random *rand.Rand) {
	made, r := &operation{Kind: "create", Client: client}, l.any(random)
	var secret string
	l.call(r, made, organizations[0], changeTimeout, func(ctx context.Context, o *operation) error {
		resp, err := r.keys.CreateApiKey(ctx, &apikeysv1.CreateApiKeyRequest{Label: "overlaps"})
		o.Key, secret = resp.GetApiKey().GetId(), resp.GetApiKey().GetSecret()
		return err
	})
	if made.Outcome != answered {
		return
	}
	rotated, r := &operation{Kind: "rotate", Client: client, Key: made.Key, Secret: 1, Overlap: true}, l.any(random)
	l.call(r, rotated, organizations[0], changeTimeout, func(ctx context.Context, o *operation) error {
		resp, err := r.keys.RotateApiKey(ctx, &apikeysv1.RotateApiKeyRequest{Id: made.Key, OverlapSeconds: proto.Int32(int32(expireAfter / time.Second))})
		o.Expires = resp.GetApiKey().GetPreviousSecretExpiresAt().AsTime().Sub(l.history.began)
		o.Masked = maskOf(resp.GetApiKey().GetSecret())
		return err
	})
	if rotated.Outcome != answered {
		return
	}
	if least, most := rotated.Call+expireAfter-clockSlack, rotated.Return+expireAfter+clockSlack; rotated.Expires < least || rotated.Expires > most {
		l.violation("the secret of key %s, rotated through replica %s, works until %v; it should from %v to %v", made.Key, r.settings.Name, rotated.Expires, least, most)
	}
	l.verifyUntil(rotated, secret, client, random)
}

// verifyUntil verifies a secret until a second after its end.
func (l *load) verifyUntil(of *operation, secret string, client int, random *rand.Rand) {
	for l.history.now() < of.Expires+clockSlack+time.Second && l.pause(time.Duration(random.IntN(60))*time.Millisecond) {
		r := l.any(random)
		o := &operation{Kind: "expiring", Client: client, Key: of.Key, Expires: of.Expires}
		l.call(r, o, organizations[0], verifyTimeout, func(ctx context.Context, o *operation) error {
			resp, err := r.keys.VerifyApiKey(ctx, &apikeysv1.VerifyApiKeyRequest{Key: secret})
			o.Code = wordOf("VERIFICATION_CODE_", resp.GetCode().String())
			return err
		})
	}
}

// clockSlack is how far the time of a replica may be off that of the database.
const clockSlack = time.Second

// checkExpiry finds secrets that worked after their end, or did not before. A change that
// another replica has answered is given its time.
func checkExpiry(history []*operation) (faults []string) {
	known := make(map[string]time.Duration) // since when all replicas know of the end
	for _, o := range history {
		if o.Kind == "rotate" && o.Expires > 0 {
			known[o.Key] = o.Return + staleness
		}
	}
	for _, o := range history {
		if o.Kind != "expiring" || o.Outcome != answered {
			continue
		}
		good := o.Code == "valid"
		switch {
		case good && o.Call > o.Expires+clockSlack && o.Call > known[o.Key]:
			faults = append(faults, fmt.Sprintf("key %s is valid on replica %c at %v, and its secret ended at %v", o.Key, 'a'+o.Replica, o.Call, o.Expires))
		case !good && o.Return < o.Expires-clockSlack:
			faults = append(faults, fmt.Sprintf("key %s is %s on replica %c at %v, and its secret works until %v", o.Key, o.Code, 'a'+o.Replica, o.Return, o.Expires))
		}
	}
	return faults
}

// checkNotices finds keys that have expired without a notice. That none has two, the
// check of the log says.
func checkNotices(history []*operation, log []logged) (faults []string) {
	told := make(map[string]bool)
	for _, e := range log {
		if e.Type == "api_key.expired" {
			told[e.Resource] = true
		}
	}
	for _, o := range history {
		if o.Kind == "expire" && o.Outcome == answered && !told[o.Key] {
			faults = append(faults, fmt.Sprintf("key %s expired at %v, and no event says so", o.Key, o.Expires))
		}
	}
	return faults
}
