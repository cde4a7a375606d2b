package deliver

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/webhook"
	"github.com/apikeys-dev/apikeys/server/wire"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// isoTime is ISO 8601 (and RFC 3339) with milliseconds.
const isoTime = "2006-01-02T15:04:05.000Z"

// Body appends what d sends of its event e to dst and returns the longer slice.
// It depends on nothing but the two: every attempt of a delivery sends the same
// bytes. The resource is shown as REST shows it, as it was when e happened.
func Body(dst []byte, d *webhook.Delivery, e *apikey.Event) ([]byte, error) {
	m, err := wire.Event(e)
	if err != nil {
		return dst, err
	}
	return BodyOf(dst, d, m)
}

// BodyOf is [Body] for an event that is at hand as the stream of events shows it.
func BodyOf(dst []byte, d *webhook.Delivery, e *apikeysv1.Event) ([]byte, error) {
	return appendBody(dst, d, e, nil)
}

// appendBody is BodyOf for an event whose resource is at hand as JSON; nil means that it
// is not.
func appendBody(dst []byte, d *webhook.Delivery, e *apikeysv1.Event, shown []byte) ([]byte, error) {
	resource, kind := resourceOf(e)
	if resource == nil {
		return dst, fmt.Errorf("body of delivery %s: the event %s shows no resource", d.ID, e.GetId())
	}
	at := e.GetCreatedAt().AsTime()
	o := object{dst: append(dst, '{'), shown: shown}
	switch d.Format {
	case webhook.FormatClassic:
		o.text("webhook_id", d.WebhookID)
		o.text("url", d.URL)
		o.text("event", e.GetType())
		o.text("resource_id", e.GetResourceId())
		o.message("payload", resource)
		o.text("timestamp", at.Format(webhook.ClassicTime))
	case webhook.FormatResource:
		o.text("id", d.ID)
		o.text("event", e.GetType())
		o.text("resource", kind)
		o.text("resourceId", e.GetResourceId())
		o.text("timestamp", at.Format(isoTime))
		o.text("apiVersion", "v1")
		if e.GetType() == string(apikey.KeyUpdated) {
			o.fields("changes", resource, e.GetChanges())
		} else {
			o.message("data", resource)
		}
	case webhook.FormatStandard:
		o.text("type", e.GetType())
		o.text("timestamp", at.Format(isoTime))
		o.message("data", resource)
	case webhook.FormatCloudEvents:
		o.text("specversion", "1.0")
		o.text("id", e.GetId())
		o.text("source", "/organizations/"+e.GetOrganizationId())
		o.text("type", e.GetType())
		o.text("subject", e.GetResourceId())
		o.text("time", at.Format(isoTime))
		o.text("datacontenttype", "application/json")
		o.message("data", resource)
	default:
		return dst, fmt.Errorf("body of delivery %s: unknown format %q", d.ID, d.Format)
	}
	return append(o.dst, '}'), nil
}

// resourceOf returns the resource that e shows, nil if it shows none, and the
// name of its kind.
func resourceOf(e *apikeysv1.Event) (m proto.Message, kind string) {
	switch {
	case e.GetApiKey() != nil:
		return e.GetApiKey(), "api_key"
	case e.GetWebhook() != nil:
		return e.GetWebhook(), "webhook"
	}
	return nil, ""
}

// object writes the members of a JSON object in the order of its calls.
type object struct {
	dst   []byte
	shown []byte // the one message among them, where it is at hand as JSON
}

func (o *object) name(name string) {
	if o.dst[len(o.dst)-1] != '{' {
		o.dst = append(o.dst, ',')
	}
	o.dst = append(wirejson.AppendString(o.dst, name), ':')
}

func (o *object) text(name, value string) {
	o.name(name)
	o.dst = wirejson.AppendString(o.dst, value)
}

func (o *object) message(name string, m proto.Message) {
	o.name(name)
	if o.shown != nil {
		o.dst = append(o.dst, o.shown...)
		return
	}
	o.dst = wirejson.Append(o.dst, m)
}

// fields writes those fields of m that names lists.
func (o *object) fields(name string, m proto.Message, names []string) {
	o.name(name)
	o.dst = append(o.dst, '{')
	r := m.ProtoReflect()
	for _, n := range names {
		if fd := r.Descriptor().Fields().ByName(protoreflect.Name(n)); fd != nil {
			o.name(n)
			o.dst = wirejson.AppendField(o.dst, r, fd)
		}
	}
	o.dst = append(o.dst, '}')
}

// rendering is an event as bodies show it, worked out once for all its deliveries. Its
// methods are safe for concurrent use.
type rendering struct {
	of *apikey.Event

	once    sync.Once
	message *apikeysv1.Event
	shown   []byte // its resource
	err     error
}

// body is [Body] of the event.
func (r *rendering) body(d *webhook.Delivery) ([]byte, error) {
	r.once.Do(func() {
		if r.message, r.err = wire.Event(r.of); r.err != nil {
			return
		}
		if resource, _ := resourceOf(r.message); resource != nil {
			r.shown = wirejson.Append(nil, resource)
		}
	})
	if r.err != nil {
		return nil, r.err
	}
	return appendBody(make([]byte, 0, len(r.shown)+512), d, r.message, r.shown)
}

// renderings are those of the events that deliveries were claimed of lately. It is the
// claiming goroutine's.
type renderings struct {
	byID  map[string]*rendering
	bytes int // of the payloads
}

// The bounds of what is kept of renderings.
const (
	maxRenderings     = 1024
	maxRenderingBytes = 4 << 20 // of the payloads, which JSON makes twice as large
)

// of returns the rendering of e, nil where that is nil.
func (r *renderings) of(e *apikey.Event) *rendering {
	if e == nil {
		return nil
	}
	if known := r.byID[e.ID]; known != nil {
		return known
	}
	if r.byID == nil || len(r.byID) >= maxRenderings || r.bytes+len(e.Payload) > maxRenderingBytes {
		r.byID, r.bytes = make(map[string]*rendering), 0
	}
	made := &rendering{of: e}
	r.byID[e.ID] = made
	r.bytes += len(e.Payload)
	return made
}
