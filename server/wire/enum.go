package wire

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/operator"
	"github.com/apikeys-dev/apikeys/server/webhook"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// enum holds a type of words of the domain and the numbers of the proto, in both
// directions. The words are the ones that JSON has, and are worked out from the
// descriptor: a value that is added to a proto needs its constant in the domain and
// nothing here. The unspecified zero has no word.
type enum[W ~string, E enumNumber] struct {
	number map[W]E
	word   map[E]W
}

type enumNumber interface {
	~int32
	protoreflect.Enum
}

func enumOf[W ~string, E enumNumber]() enum[W, E] {
	words := wirejson.EnumWords(E(0).Descriptor())
	e := enum[W, E]{number: make(map[W]E, len(words)), word: make(map[E]W, len(words))}
	for n, word := range words {
		if n != 0 {
			e.number[W(word)], e.word[E(n)] = E(n), W(word)
		}
	}
	return e
}

var (
	states         = enumOf[apikey.State, apikeysv1.ApiKeyState]()
	modes          = enumOf[apikey.Mode, apikeysv1.ApiKeyMode]()
	revokeReasons  = enumOf[apikey.RevokeReason, apikeysv1.RevokeReason]()
	codes          = enumOf[apikey.Code, apikeysv1.VerificationCode]()
	refusalCodes   = enumOf[apikey.Code, apikeysv1.RefusalCode]()
	refusalVias    = enumOf[apikey.RefusalVia, apikeysv1.RefusalVia]()
	usageGroups    = enumOf[apikey.UsageGroup, apikeysv1.UsageGroup]()
	refills        = enumOf[apikey.Refill, apikeysv1.QuotaRefill]()
	webhookFormats = enumOf[webhook.Format, apikeysv1.WebhookFormat]()
	disabled       = enumOf[webhook.DisabledReason, apikeysv1.WebhookDisabledReason]()
	healthStates   = enumOf[webhook.HealthState, apikeysv1.WebhookHealthState]()
	deliveryStates = enumOf[webhook.DeliveryState, apikeysv1.DeliveryState]()
	roles          = enumOf[operator.Role, apikeysv1.OperatorRole]()
	credentials    = enumOf[apikey.CredentialKind, apikeysv1.CredentialKind]()
	triggers       = enumOf[webhook.Trigger, apikeysv1.DeliveryTrigger]()
)

// State returns the word of a state; the unspecified one has none.
func State(e apikeysv1.ApiKeyState) apikey.State { return states.word[e] }

// Mode returns the word of a mode; the unspecified one has none.
func Mode(e apikeysv1.ApiKeyMode) apikey.Mode { return modes.word[e] }

// RevokeReason returns the word of a reason.
func RevokeReason(e apikeysv1.RevokeReason) apikey.RevokeReason {
	if e == apikeysv1.RevokeReason_REVOKE_REASON_UNSPECIFIED {
		return apikey.RevokeUnspecified
	}
	return revokeReasons.word[e]
}

// WebhookFormat returns the word of a format; the unspecified one has none.
func WebhookFormat(e apikeysv1.WebhookFormat) webhook.Format { return webhookFormats.word[e] }

// DeliveryState returns the word of a delivery's state; the unspecified one has none.
func DeliveryState(e apikeysv1.DeliveryState) webhook.DeliveryState { return deliveryStates.word[e] }
