package main

import (
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
)

// explainStatus turns the error of a call to the server at address into one line
// for a person. What the server itself has said has words, a reason and a support
// id; everything else happened on the way. Whatever answers at the address has written
// parts of it, so there is nothing in it that a terminal would obey.
func explainStatus(address string, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	var info *errdetails.ErrorInfo
	var ids *errdetails.RequestInfo
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RequestInfo:
			ids = d
		}
	}
	if info.GetDomain() != "apikeys" {
		return errors.New(output.Printable(address + ": " + onTheWay(st)))
	}
	// The header is what the flag becomes.
	line := strings.Replace(strings.TrimSuffix(st.Message(), "."), "x-organization-id", "--organization", 1) + " (" + info.GetReason()
	if ids.GetServingData() != "" {
		line += ", " + ids.GetServingData()
	}
	line += ")"
	if oldest := info.GetMetadata()["oldest"]; st.Code() == codes.OutOfRange && oldest != "" {
		line += "; what is still kept follows --after=" + oldest
	}
	if next := nextSteps[info.GetReason()]; next != "" {
		line += "; " + next
	}
	return errors.New(output.Printable(line))
}

// onTheWay says what went wrong between us and the server.
func onTheWay(st *status.Status) string {
	text := st.Message()
	if _, cause, ok := strings.Cut(text, "Error while dialing: "); ok {
		cause = strings.TrimSuffix(cause, `"`)
		if strings.HasSuffix(cause, "connection refused") {
			cause += "; does the server run? apikeys serve starts it, and --address names another"
		}
		return cause
	}
	switch {
	case strings.Contains(text, "error reading server preface"):
		text += "; is this the gRPC port, and does it want TLS (--tls)?"
	case strings.Contains(text, "signed by unknown authority"):
		text += "; --ca-file names the file of the authorities to trust, such as the server's own certificate"
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		text += "; the server speaks no TLS: write grpc://host:port to reach it without, if the token may be read on its way"
	case st.Code() == codes.Unimplemented:
		text += "; is this the gRPC port of the server?"
	}
	return text
}

// nextSteps are what a person can do about an error, by its reason.
var nextSteps = map[string]string{ //nolint:gosec // They name commands; they hold no credential.
	"UNAVAILABLE":              "the log of the server and its /readyz say why",
	"UNAUTHENTICATED":          "log in again with apikeys login, or set APIKEYS_TOKEN",
	"INSUFFICIENT_SCOPE":       "apikeys me shows what this token may do",
	"WRONG_ORGANIZATION":       "apikeys me shows the organizations of this token; name one with --organization",
	"API_KEY_NOT_FOUND":        "apikeys keys list shows the keys of this organization; --organization names another",
	"WEBHOOK_NOT_FOUND":        "apikeys webhooks list shows those of this organization; --organization names another",
	"DELIVERY_NOT_FOUND":       "apikeys deliveries list shows those of this organization; --organization names another",
	"OPERATOR_TOKEN_NOT_FOUND": "apikeys tokens list shows those that there are",
	"ROTATION_IN_PROGRESS":     "--end-previous ends the older secret now",
	"TOO_MANY_SECRETS":         "--end-oldest ends the oldest secret now",
	"ETAG_MISMATCH":            "get it again, and change that",
	"EXTERNAL_ID_TAKEN":        "apikeys keys list --external-id ID shows the key that has it",
	"WEBHOOK_DISABLED":         "apikeys webhooks update ID --enabled lets it be called again",
	"TOO_MANY_WEBHOOKS":        "apikeys webhooks delete ID makes room",
}

// reasonOf returns the reason that the server gave for an error, empty for none.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "apikeys" {
			return info.GetReason()
		}
	}
	return ""
}
