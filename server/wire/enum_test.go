package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
)

// TestEnums holds the constants of the domain to the words of the protos.
func TestEnums(t *testing.T) {
	t.Parallel()
	wantWords(t, states, apikey.StateActive, apikey.StateDisabled, apikey.StateExpired, apikey.StateRevoked)
	wantWords(t, modes, apikey.ModeLive, apikey.ModeTest)
	wantWords(t, revokeReasons, apikey.RevokeKeyCompromise, apikey.RevokeSuperseded, apikey.RevokeNoLongerNeeded, apikey.RevokePrivilegeWithdrawn)
	wantWords(t, codes, apikey.CodeMalformed, apikey.CodeNotFound, apikey.CodeRevoked, apikey.CodeDisabled, apikey.CodeExpired,
		apikey.CodeIPNotAllowed, apikey.CodeInsufficientScope, apikey.CodeRateLimited, apikey.CodeQuotaExceeded, apikey.CodeValid)
	wantWords(t, refills, apikey.RefillNone, apikey.RefillDaily, apikey.RefillMonthly)
	wantWords(t, webhookFormats, webhook.FormatClassic, webhook.FormatResource, webhook.FormatStandard, webhook.FormatCloudEvents)
	wantWords(t, disabled, webhook.DisabledGone, webhook.DisabledFailing)
	wantWords(t, healthStates, webhook.HealthUnknown, webhook.HealthHealthy, webhook.HealthFailing)
	wantWords(t, deliveryStates, webhook.StatePending, webhook.StateDelivered, webhook.StateFailed, webhook.StateCancelled)
	wantWords(t, triggers, webhook.TriggerSchedule, webhook.TriggerRetry, webhook.TriggerReplay, webhook.TriggerTest)
	if RevokeReason(apikeysv1.RevokeReason_REVOKE_REASON_UNSPECIFIED) != apikey.RevokeUnspecified || State(0) != "" || State(99) != "" {
		t.Error("the unspecified and the unknown have other words")
	}
}

// wantWords wants e to have these words and no others.
func wantWords[W ~string, E enumNumber](t *testing.T, e enum[W, E], words ...W) {
	t.Helper()
	want, got := make(map[W]protoreflect.EnumNumber), make(map[W]protoreflect.EnumNumber)
	for w, n := range e.number {
		got[w] = n.Number()
	}
	for _, w := range words {
		want[w] = e.number[w].Number()
		if e.word[e.number[w]] != w {
			t.Errorf("%s has the number %d, which has the word %q", w, e.number[w], e.word[e.number[w]])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the domain's words differ from the proto's (-domain +proto)\n%s", diff)
	}
}
