package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// explainStatus turns the error of a call to the server at address into one line
// for a person. What the server itself has said has words, a reason and a support
// id; everything else happened on the way.
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
		return fmt.Errorf("%s: %s", address, onTheWay(st))
	}
	line := strings.TrimSuffix(st.Message(), ".") + " (" + info.GetReason()
	if ids.GetServingData() != "" {
		line += ", " + ids.GetServingData()
	}
	line += ")"
	if oldest := info.GetMetadata()["oldest"]; st.Code() == codes.OutOfRange && oldest != "" {
		line += "; what is still kept follows --after=" + oldest
	}
	return errors.New(line)
}

// onTheWay says what went wrong between us and the server.
func onTheWay(st *status.Status) string {
	text := st.Message()
	if _, cause, ok := strings.Cut(text, "Error while dialing: "); ok {
		return strings.TrimSuffix(cause, `"`)
	}
	switch {
	case strings.Contains(text, "error reading server preface"):
		text += "; is this the gRPC port, and does it want TLS?"
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		text += "; the server speaks no TLS: write grpc://host:port to reach it without, if the token may be read on its way"
	case st.Code() == codes.Unimplemented:
		text += "; is this the gRPC port of the server?"
	}
	return strings.ReplaceAll(text, "\n", " ")
}

// retryAfter returns how long a refused caller is asked to wait, 0 if it is not.
func retryAfter(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if d, ok := detail.(*errdetails.RetryInfo); ok {
			return d.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
