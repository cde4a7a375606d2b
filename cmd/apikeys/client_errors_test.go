package main

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestTerminalObeysNoServer has whatever answers at an address, and an endpoint of a
// webhook, say what a terminal would obey.
func TestTerminalObeysNoServer(t *testing.T) {
	t.Parallel()
	const evil = "evil\x1b]0;x\x07\r\n\u009b31m\u202e"
	ours, err := status.New(codes.OutOfRange, evil).WithDetails(
		&errdetails.ErrorInfo{Domain: "apikeys", Reason: evil, Metadata: map[string]string{"oldest": evil}},
		&errdetails.RequestInfo{ServingData: evil})
	if err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	report(&shown, explainStatus("a:1", status.Error(codes.Internal, evil)))
	report(&shown, explainStatus("a:1", status.Error(codes.Unavailable, "Error while dialing: "+evil)))
	report(&shown, explainStatus("a:1", ours.Err()))
	tellCursor(&shown, evil)
	if err := (&listener{out: &shown}).row("now", evil, evil, evil, evil, evil); err != nil {
		t.Fatal(err)
	}
	if strings.Count(shown.String(), "\n") != 5 || strings.ContainsAny(shown.String(), "\x1b\x07\r\u009b\u202e") {
		t.Errorf("it is shown %q", shown.String())
	}
}

// TestErrorsSayWhatToDoNext has a server say what a person at a terminal cannot act on
// as it stands.
func TestErrorsSayWhatToDoNext(t *testing.T) {
	t.Parallel()
	said := func(code codes.Code, reason, text string) error {
		t.Helper()
		st, err := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Domain: "apikeys", Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for want, err := range map[string]error{
		"--organization must name one organization": said(codes.InvalidArgument, "INVALID_ARGUMENT", "x-organization-id must name one organization."),
		"the log of the server":                     said(codes.Unavailable, "UNAVAILABLE", "The change was not made."),
		"--ca-file":                                 status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority"`),
		"--tls":                                     status.Error(codes.Unavailable, `connection error: desc = "error reading server preface: EOF"`),
		"apikeys serve starts it":                   status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`),
	} {
		if got := explainStatus("a:1", err).Error(); !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}
