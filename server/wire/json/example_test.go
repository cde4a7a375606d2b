package json_test

import (
	"errors"
	"fmt"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

func ExampleAppend() {
	answer := &apikeysv1.VerifyApiKeyResponse{
		Code:      apikeysv1.VerificationCode_VERIFICATION_CODE_RATE_LIMITED,
		RateLimit: &apikeysv1.RateLimitStatus{Limit: 100, ResetAt: at("2026-05-30 20:23:16")},
	}
	fmt.Printf("%s\n", wirejson.Append(nil, answer))
	// Output:
	// {"valid":false,"code":"rate_limited","api_key":null,"rate_limit":{"limit":100,"remaining":0,"reset_at":"2026-05-30 20:23:16"},"quota":null,"previous_secret":false,"retry_after_seconds":null}
}

func ExampleReadRequest() {
	var create apikeysv1.CreateApiKeyRequest
	err := wirejson.ReadRequest([]byte(`{"label": 7, "expires_at": "tomorrow", "colour": "red"}`), &create, wirejson.Body{})
	if fields, ok := errors.AsType[*apikey.Error](err); ok {
		for _, p := range fields.Fields {
			fmt.Println(p.Field, p.Problem)
		}
	}
	// Output:
	// label must be a string
	// expires_at must be a time such as 2026-05-30 20:23:16 or 2026-05-30T20:23:16Z
	// colour is not a known field
}

// A merge patch names what it changes; null clears.
func ExampleReadRequest_patch() {
	var update apikeysv1.UpdateApiKeyRequest
	err := wirejson.ReadRequest([]byte(`{"label": "new", "expires_at": null, "metadata": {"team": "billing"}}`), &update, wirejson.Body{})
	fmt.Println(update.GetUpdateMask().GetPaths(), err)
	// Output:
	// [label expires_at metadata.`team`] <nil>
}
