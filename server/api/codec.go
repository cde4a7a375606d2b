package api

import (
	"sync"

	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// sharedMessage is an event on its way to many streams: its bytes, for those that have a
// wire, and its message, for those within the process. Each is made when the first
// stream asks for it, and is read only.
type sharedMessage struct {
	encoded func() (mem.BufferSlice, error)
	message func() (*apikeysv1.WatchEventsResponse, error)
}

// sharedMessage returns a function that makes the shared message of an event for the
// streams of organization.
func (s *events) sharedMessage(organization string) func(*apikey.Event) any {
	return func(e *apikey.Event) any {
		cursor := sync.OnceValue(func() string { return s.cursors.Seal(e.Position, organization) })
		return &sharedMessage{
			encoded: sync.OnceValues(func() (mem.BufferSlice, error) {
				encoded, err := wire.AppendWatchEvent(nil, e, cursor())
				// A SliceBuffer is not counted and never given back to a pool, so the
				// same one can be sent any number of times.
				return mem.BufferSlice{mem.SliceBuffer(encoded)}, err
			}),
			message: sync.OnceValues(func() (*apikeysv1.WatchEventsResponse, error) {
				m, err := s.message(e, cursor())
				return &apikeysv1.WatchEventsResponse{Cursor: cursor(), Event: m}, err
			}),
		}
	}
}

// encodedMessage is an answer that is made as bytes at once.
type encodedMessage []byte

// encodedSize returns how many bytes an answer has once it is encoded.
func encodedSize(resp any) int {
	switch m := resp.(type) {
	case encodedMessage:
		return len(m)
	case proto.Message:
		return proto.Size(m)
	default:
		return 0
	}
}

// Codec is the codec of protobuf with two additions. A message that is encoded already
// is sent as its bytes are, and the call of an answer is told where its bytes go. A
// server that listens uses it for everything.
type Codec struct{ encoding.CodecV2 }

// NewCodec returns the codec.
func NewCodec() Codec { return Codec{encoding.GetCodecV2(grpcproto.Name)} }

// Marshal returns the bytes of v.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *sharedMessage:
		return m.encoded()
	case encodedMessage:
		return append(make(mem.BufferSlice, 0, 2), mem.SliceBuffer(m)), nil
	case *call:
		data, err := c.Marshal(m.answer)
		if err != nil {
			m.wire.End()
			return nil, err
		}
		return m.wire.Answer(data), nil
	case *guardedStream:
		data, err := c.Marshal(m.sending)
		if err != nil {
			return nil, err
		}
		return m.wire.Follow(data), nil
	default:
		return c.CodecV2.Marshal(v)
	}
}
