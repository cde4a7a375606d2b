package json

import (
	"testing"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// A decoder that is kept for the next body remembers nothing of the last one: the
// library holds the names that it saw, and a secret may stand in the place of one.
func TestDecoderRemembersNothing(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		kept bool
	}{
		"fields alone":            {`{"label": "a\n", "scopes": ["b"], "rate_limit": {"requests": 1}}`, true},
		"a value of a wrong kind": {`{"label": 1}`, true},
		"an unknown name":         {`{"sk_live_x": 1}`, false},
		"an unknown name within":  {`{"rate_limit": {"sk_live_x": 1}}`, false},
		"a key of a map":          {`{"metadata": {"sk_live_x": "1"}}`, false},
		"a name passed over":      {`{"label": {"sk_live_x": 1}}`, false},
		"a name in a list":        {`{"scopes": [[{"sk_live_x": 1}]]}`, false},
		"a broken body":           {`{"label": 1, "label": 2}`, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDecoder([]byte(tc.body))
			r := &reader{decoder: d, body: &Body{}}
			if kept := d.release(r.read((&apikeysv1.CreateApiKeyRequest{}).ProtoReflect())); kept != tc.kept {
				t.Fatalf("kept is %t, want %t", kept, tc.kept)
			}
			if !tc.kept {
				return
			}
			for _, b := range d.text[:cap(d.text)] {
				if b != 0 {
					t.Fatalf("text of the body stays: %q", d.text[:cap(d.text)])
				}
			}
			if d.data != nil || d.input.Len() != 0 || d.tokens.UnreadBuffer() != nil {
				t.Error("the body stays")
			}
		})
	}
}
