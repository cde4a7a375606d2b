package json_test

import (
	"errors"
	"fmt"
	"net/url"

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

func ExampleReadQuery() {
	query, _ := url.ParseQuery("page_size=5&state=active&colour=red&expires_before=2026-05-30+20:23:16")
	var list apikeysv1.ListApiKeysRequest
	fmt.Println(wirejson.ReadQuery(query, &list))
	query.Del("colour")
	fmt.Println(wirejson.ReadQuery(query, &list), list.GetPageSize(), list.GetState())
	// Output:
	// colour is not a known parameter
	// <nil> 5 API_KEY_STATE_ACTIVE
}

// A heartbeat is a line without an event.
func ExampleAppendWatch() {
	fmt.Printf("%s\n", wirejson.AppendWatch(nil, &apikeysv1.WatchEventsResponse{Cursor: "c"}))
	// Output:
	// {"cursor":"c"}
}

// A syntax error tells the place and never quotes the body.
func ExampleSyntaxError() {
	err := wirejson.ReadRequest([]byte("{\"label\": \"x\",\n \"label\": \"y\"}"), &apikeysv1.CreateApiKeyRequest{}, wirejson.Body{})
	fmt.Println(err)
	// Output:
	// the body is not valid JSON: a name that was there before at line 2, column 2
}
