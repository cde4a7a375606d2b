package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// wireStream is the stream of gRPC's transport, as far as a message is read from
// it. The library would read it for us, but when that fails it answers by itself,
// in its own words and with a code of its own, before it returns. TestWireStream
// finds out if a later version has no such stream.
type wireStream interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
	RecvCompress() string
}

// headerLength is that of what stands before a message: a flag that says whether it
// is compressed, and its length.
const headerLength = 5

// receive reads the one message of a request into m. decode does so where there is
// no wire: on the connection inside the process.
func receive(ctx context.Context, call *call, m any, decode func(any) error) error {
	stream, remote := grpc.ServerTransportStreamFromContext(ctx).(wireStream)
	message, known := m.(proto.Message)
	if !remote || !known {
		return call.keep(decode(m))
	}
	defer call.wire.Refund()
	data, err := readMessage(stream, call)
	if err != nil {
		return err
	}
	defer data.Free()
	if err := stream.ReadMessageHeader(call.header[:]); err == nil {
		return malformed(errors.New("a second message"))
	} else if !errors.Is(err, io.EOF) {
		return unread(err)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return decodeMessage(buf.ReadOnlyData(), message)
}

// arrived returns the error of receiving the message of a call, or that the message
// took too long.
func arrived(call *call, err error) error {
	if !call.wire.Received() {
		return errMessageTimeout
	}
	return err
}

// readMessage reads the next message of a stream. Messages that are compressed are
// refused: the server would hold more than it has counted. Where the process knows no
// compressor, the library refuses them before the handler.
func readMessage(stream wireStream, call *call) (mem.BufferSlice, error) {
	if coding := stream.RecvCompress(); coding != "" && coding != encoding.Identity {
		return nil, errCompressed
	}
	header := call.header[:]
	if err := stream.ReadMessageHeader(header); err != nil {
		return nil, unread(err)
	}
	flag := header[0]
	length := int64(header[1])<<24 | int64(header[2])<<16 | int64(header[3])<<8 | int64(header[4])
	switch {
	case flag != 0:
		return nil, malformed(fmt.Errorf("a message with the flag %d", flag))
	case length > apikey.MaxRequest:
		return nil, errTooLarge
	}
	if call.wire.Reserve(length) != nil {
		return nil, apikey.ErrAnswersUnread
	}
	data, err := stream.Read(int(length))
	if err != nil {
		data.Free()
		return nil, unread(err)
	}
	return data, nil
}

// unread is the failure of a message that did not arrive.
func unread(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed(fmt.Errorf("the request ends within its message: %w", err))
	}
	return fmt.Errorf("read the request: %w", err)
}

// malformed is the failure of a message that cannot be read.
func malformed(err error) error { return fmt.Errorf("%w: %w", errMalformed, err) }

var (
	errMalformed = apikey.Errorf(apikey.KindInvalid, "MALFORMED_MESSAGE",
		"The message of the request cannot be read; it must be one protobuf message of the method's request type.")
	errCompressed = apikey.Errorf(kindUnimplemented, "UNSUPPORTED_MEDIA_TYPE",
		"Send the message uncompressed, without grpc-encoding.")
	errMessageTimeout = apikey.Errorf(apikey.KindInvalid, apikey.ReasonIncomplete,
		"The message did not arrive in time. Send the request again.")
	errTooLarge = apikey.Errorf(apikey.KindExhausted, apikey.ReasonTooLarge, "The message is larger than 1 MiB.")
)

// decodeMessage decodes the bytes of a message.
func decodeMessage(data []byte, m proto.Message) error {
	err := proto.Unmarshal(data, m)
	if err == nil {
		return nil
	}
	switch m.(type) {
	case *apikeysv1.VerifyApiKeyRequest, *apikeysv1.BatchVerifyApiKeysRequest:
		// A key to verify is whatever somebody sent to our caller, who asks us what it
		// is worth.
		data = withoutBinaryKeys(data, m.ProtoReflect().Descriptor())
		if err = proto.Unmarshal(data, m); err == nil {
			return nil
		}
	}
	if name := binaryText(data, m.ProtoReflect().Descriptor()); name != "" {
		name = withoutResource(name)
		return apikey.InvalidField(name, "must be valid UTF-8")
	}
	return malformed(err)
}

// binaryText returns the name of the first text of a message of md that is not UTF-8,
// which protobuf does not always tell, or "" where there is none. A map is named as a
// whole.
func binaryText(data []byte, md protoreflect.MessageDescriptor) string {
	places := make(map[protowire.Number]int)
	for len(data) > 0 {
		number, kind, tag := protowire.ConsumeTag(data)
		if tag < 0 {
			return ""
		}
		n := protowire.ConsumeFieldValue(number, kind, data[tag:])
		if n < 0 {
			return ""
		}
		value := data[tag : tag+n]
		data = data[tag+n:]
		fd := md.Fields().ByNumber(number)
		if fd == nil || kind != protowire.BytesType {
			continue
		}
		name := string(fd.Name())
		if fd.IsList() {
			name += fmt.Sprintf("[%d]", places[number])
			places[number]++
		}
		text, _ := protowire.ConsumeBytes(value)
		switch {
		case fd.Kind() == protoreflect.StringKind && !utf8.Valid(text):
			return name
		case fd.Message() == nil:
		default:
			if inner := binaryText(text, fd.Message()); inner != "" && fd.IsMap() {
				return name
			} else if inner != "" {
				return name + "." + inner
			}
		}
	}
	return ""
}

// withoutBinaryKeys returns the bytes of a request of md with each key to verify
// that is no text left empty: both are malformed.
func withoutBinaryKeys(data []byte, md protoreflect.MessageDescriptor) []byte {
	fields := md.Fields()
	var clean []byte
	for len(data) > 0 {
		number, kind, tag := protowire.ConsumeTag(data)
		if tag < 0 {
			return append(clean, data...)
		}
		n := protowire.ConsumeFieldValue(number, kind, data[tag:])
		if n < 0 {
			return append(clean, data...)
		}
		field := data[:tag+n]
		data = data[tag+n:]
		fd := fields.ByNumber(number)
		if fd == nil || kind != protowire.BytesType {
			clean = append(clean, field...)
			continue
		}
		value, _ := protowire.ConsumeBytes(field[tag:])
		switch fd.Name() {
		case "key":
			if !utf8.Valid(value) {
				value = nil
			}
		case "keys":
			value = withoutBinaryKeys(value, fd.Message())
		}
		clean = protowire.AppendBytes(protowire.AppendTag(clean, number, kind), value)
	}
	return clean
}
