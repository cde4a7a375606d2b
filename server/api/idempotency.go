package api

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/store"
)

// The metadata of idempotent calls, and over REST their headers: the key that names a
// call, and the mark of an answer that was given before.
const (
	headerIdempotencyKey = "idempotency-key"
	headerReplayed       = "idempotency-replayed"
)

// maxIdempotencyKey is how many characters an idempotency key may have.
const maxIdempotencyKey = 255

// An idempotentMethod is a method that an idempotency key protects.
type idempotentMethod struct {
	answer protoreflect.MessageType
	// several says that it makes its changes in several transactions.
	several bool
}

// idempotentMethods returns the methods that an idempotency key protects, by their full
// names. A method that POST or PATCH calls, and that does not say what a key does for
// it, is an error: it could not be served before someone has said it.
func idempotentMethods(services []*grpc.ServiceDesc) (map[string]idempotentMethod, error) {
	table := make(map[string]idempotentMethod)
	for _, desc := range services {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
		if err != nil {
			return nil, fmt.Errorf("find service %s: %w", desc.ServiceName, err)
		}
		all := found.(protoreflect.ServiceDescriptor).Methods()
		for i := range all.Len() {
			method := all.Get(i)
			rule, _ := proto.GetExtension(method.Options(), apikeysv1.E_Rule).(*apikeysv1.MethodRule)
			switch said := rule.GetIdempotency(); said {
			case apikeysv1.Idempotency_IDEMPOTENCY_IGNORED:
			case apikeysv1.Idempotency_IDEMPOTENCY_UNSPECIFIED:
				if routes := strings.Join(routesOf(method), " "); strings.Contains(routes, "POST ") || strings.Contains(routes, "PATCH ") {
					return nil, fmt.Errorf("method %s has no idempotency in its (apikeys.v1.rule)", method.FullName())
				}
			default:
				answer, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
				if err != nil {
					return nil, fmt.Errorf("find the answer of %s: %w", method.FullName(), err)
				}
				table["/"+desc.ServiceName+"/"+string(method.Name())] = idempotentMethod{
					answer:  answer,
					several: said == apikeysv1.Idempotency_IDEMPOTENCY_SEVERAL_TRANSACTIONS,
				}
			}
		}
	}
	return table, nil
}

// idempotency is what the chain knows of the key of one call.
type idempotency struct {
	method  idempotentMethod
	name    string // of the method
	call    store.IdempotentCall
	claimed bool
}

// withIdempotency returns the context of a call, with its idempotency key where it
// names one and the method is protected by it. A key that cannot be is a fault of the
// request.
func (c *chain) withIdempotency(ctx context.Context, call *call, method string) context.Context {
	values := metadata.ValueFromIncomingContext(ctx, headerIdempotencyKey)
	protected, ok := c.idempotent[method]
	if len(values) == 0 || !ok {
		return ctx
	}
	key, problem := idempotencyKey(values)
	if problem == "" && c.validator.secrets.In(key) {
		problem = "must not hold a secret"
	}
	if problem != "" {
		call.refused.add(headerIdempotencyKey, problem)
		return ctx
	}
	organization := call.caller.Organization
	charged := organization
	if call.caller.Requirement.NoOrganization {
		organization = "" // whichever the call names
		charged = call.caller.Rights.Home()
	}
	call.idempotency = &idempotency{method: protected, name: method, call: store.IdempotentCall{
		ID: store.RecordID(organization, call.caller.Actor, key), Organization: charged,
	}}
	return store.WithCall(ctx, &call.idempotency.call)
}

// idempotencyKey returns the key that the values of the header name, or what is wrong
// with them: it comes as it is, or as a string of RFC 8941, in quotes.
func idempotencyKey(values []string) (key, problem string) {
	const form = "must be 1 to 255 visible ASCII characters, with or without quotes around them"
	for i, value := range values {
		value = strings.TrimSpace(value)
		if strings.HasPrefix(value, `"`) {
			text, ok := unquoted(value)
			if !ok {
				return "", form
			}
			value = text
		}
		if i > 0 && value != key {
			return "", "was sent twice with different values"
		}
		key = value
	}
	if key == "" || len(key) > maxIdempotencyKey || strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' }) {
		return "", form
	}
	return key, ""
}

// unquoted returns the text of a string of RFC 8941.
func unquoted(value string) (string, bool) {
	if len(value) < 2 || !strings.HasSuffix(value, `"`) {
		return "", false
	}
	value = value[1 : len(value)-1]
	var text strings.Builder
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '"':
			return "", false
		case '\\':
			if i++; i == len(value) || value[i] != '"' && value[i] != '\\' {
				return "", false
			}
		}
		text.WriteByte(value[i])
	}
	return text.String(), true
}

// beginIdempotent is called with the request, before the method. Its error is the
// answer of a call that was made before, or why it may not be made.
func (c *chain) beginIdempotent(ctx context.Context, call *call, m any) error {
	i := call.idempotency
	request, ok := m.(proto.Message)
	if i == nil || !ok {
		return nil
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(append([]byte(i.name), 0), request)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	i.call.Request = encoded
	if err := c.store.Answered(ctx, &i.call); err != nil || !i.method.several || len(call.refused)+len(call.faults) > 0 {
		return err
	}
	if err := c.store.ClaimCall(ctx, authorOf(ctx), &i.call); err != nil {
		return err
	}
	i.claimed = true
	return nil
}

// endIdempotent returns the answer of a call: the one that was given before, where that
// is what its error says. A call of several transactions has its answer kept here.
func (c *chain) endIdempotent(ctx context.Context, call *call, resp any, err error) (any, error) {
	i := call.idempotency
	if i == nil {
		return resp, err
	}
	if answered, ok := errors.AsType[*store.AnsweredError](err); ok {
		m := i.method.answer.New().Interface()
		if err := proto.Unmarshal(answered.Answer, m); err != nil {
			return nil, fmt.Errorf("read the answer that was kept: %w", err)
		}
		if err := grpc.SetHeader(ctx, metadata.Pairs(headerReplayed, "true")); err != nil {
			return nil, fmt.Errorf("mark the answer: %w", err)
		}
		return m, c.dropAnswered(ctx, m)
	}
	if !i.claimed {
		return resp, err
	}
	if err != nil {
		if abandoned := c.store.AbandonCall(ctx, &i.call); abandoned != nil {
			c.log.Warn("The claim of an idempotent call could not be given up; it ends of itself.", "error", abandoned)
		}
		return nil, err
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(resp.(proto.Message))
	if err == nil {
		err = c.store.CompleteCall(ctx, &i.call, encoded)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the answer: %w", err)
	}
	return resp, nil
}

// answer makes a change and returns its answer, which message makes of what change
// returns. Where the call names an idempotency key the answer is made, and kept, within
// the transaction of the change, of that which change will return.
//
// Every method of one transaction answers by it: see [store.IdempotentCall].
func answer[R any, M proto.Message](ctx context.Context, message func(*R) (M, error), change func() (R, error)) (M, error) {
	var made M
	var none M
	kept := false
	if i := callOf(ctx).idempotency; i != nil {
		i.call.Answer = func(result any) ([]byte, error) {
			r, ok := result.(*R)
			if !ok {
				return nil, fmt.Errorf("an answer of %T, not of %T", result, r)
			}
			var err error
			if made, err = message(r); err != nil {
				return nil, err
			}
			kept = true
			return proto.MarshalOptions{Deterministic: true}.Marshal(made)
		}
	}
	r, err := change()
	switch {
	case err != nil:
		return none, err
	case kept:
		return made, nil
	}
	return message(&r)
}

// dropAnswered drops what is cached of the keys and operator tokens that an answer tells
// of. Another server may just have made the change and given the answer first; it must be
// in force here too once it is given again.
func (c *chain) dropAnswered(ctx context.Context, answer proto.Message) error {
	ids := resourceIDs(nil, answer.ProtoReflect())
	if len(ids) == 0 {
		return nil
	}
	_, newest, err := c.store.EventBounds(ctx)
	if err != nil {
		return err
	}
	c.authn.Drop(ids, newest)
	return nil
}

// resourceIDs appends the ids of keys and operator tokens in a message.
func resourceIDs(ids []string, m protoreflect.Message) []string {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				ids = resourceIDs(ids, value.List().Get(i).Message())
			}
		case field.IsList():
		case field.Message() != nil:
			ids = resourceIDs(ids, value.Message())
		case field.Name() == "id" && field.Kind() == protoreflect.StringKind:
			if id := value.String(); strings.HasPrefix(id, apikey.IDPrefix) || strings.HasPrefix(id, apikey.TokenIDPrefix) {
				ids = append(ids, id)
			}
		}
		return true
	})
	return ids
}
