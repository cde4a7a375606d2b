package json

import apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"

// AppendWatchJSON appends a message of WatchEvents as a line of a stream has
// it, without the line's end: {"cursor":"...","event":{...}}. Unlike everywhere
// else the event that is unset is left out, since that is how a reader knows a
// heartbeat: {"cursor":"..."}.
func AppendWatchJSON(dst []byte, m *apikeysv1.WatchEventsResponse) []byte {
	dst = AppendString(append(dst, `{"cursor":`...), m.GetCursor())
	if m.GetEvent() != nil {
		dst = AppendJSON(append(dst, `,"event":`...), m.GetEvent())
	}
	return append(dst, '}')
}
