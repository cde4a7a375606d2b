package rest

import (
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// Server-Sent Events, as the HTML standard has them. A block without data is no
// event for whoever listens, but its id counts all the same: the last event id
// is set before the data is looked at. So a heartbeat moves what an EventSource
// sends as Last-Event-ID, and nobody sees it.
//
// Neither cursors nor types nor our JSON have line ends, so each is one line.

// appendSSE appends a message of the stream.
func appendSSE(dst []byte, m *apikeysv1.WatchEventsResponse) []byte {
	event := m.GetEvent()
	if event == nil {
		dst = append(dst, ": heartbeat\n"...)
	}
	dst = append(append(dst, "id: "...), m.GetCursor()...)
	if event != nil {
		dst = append(append(dst, "\nevent: "...), event.GetType()...)
		dst = wirejson.Append(append(dst, "\ndata: "...), event)
	}
	return append(dst, "\n\n"...)
}

// appendSSEFailure appends the end of a stream that failed. It has no id, so
// that the one before stays the place to go on after.
func appendSSEFailure(dst, envelope []byte) []byte {
	dst = append(append(dst, "event: error\ndata: "...), envelope...)
	return append(dst, "\n\n"...)
}
