package keyring

import (
	"bytes"
	"strings"
	"testing"
)

func TestSealer(t *testing.T) {
	t.Parallel()
	first := NewKey("e_1", strings.Repeat("1", 32))
	second := NewKey("e_2", strings.Repeat("2", 32))
	sealer := func(keys ...Key) *Sealer {
		s, err := NewSealer(keys...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const place = "webhook_1"
	value := []byte("hunter3")
	sealed := sealer(first).Seal(value, place)
	if sealed.KeyID != "e_1" || bytes.Contains(sealed.Data, value) || len(sealed.Data) != len(value)+Overhead {
		t.Errorf("got %+v", sealed)
	}
	if again := sealer(first).Seal(value, place); bytes.Equal(sealed.Data, again.Data) {
		t.Error("equal values have equal forms")
	}
	for name, s := range map[string]*Sealer{"its key": sealer(first), "a newer key in front": sealer(second, first)} {
		if got, err := s.Open(sealed, place); err != nil || !bytes.Equal(got, value) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got, ok := s.OpenAny(sealed.Data, place); !ok || !bytes.Equal(got, value) {
			t.Errorf("%s, without the id: %q, %v", name, got, ok)
		}
	}
	flipped := bytes.Clone(sealed.Data)
	flipped[len(flipped)-1] ^= 1
	renamed := NewKey("e_3", strings.Repeat("1", 32))
	for name, c := range map[string]struct {
		sealer *Sealer
		sealed Sealed
		place  string
	}{
		"without its key":            {sealer(second), sealed, place},
		"under another key":          {sealer(second), Sealed{"e_2", sealed.Data}, place},
		"the same key by another id": {sealer(renamed), Sealed{"e_3", sealed.Data}, place},
		"for another row":            {sealer(first), sealed, "webhook_2"},
		"for the beginning of a row": {sealer(first), sealed, "webhook_"},
		"with a flipped bit":         {sealer(first), Sealed{"e_1", flipped}, place},
		"empty":                      {sealer(first), Sealed{KeyID: "e_1"}, place},
	} {
		if got, err := c.sealer.Open(c.sealed, c.place); err == nil || strings.Contains(err.Error(), "hunter3") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got, ok := c.sealer.OpenAny(c.sealed.Data, c.place); ok {
			t.Errorf("%s, without the id: %q", name, got)
		}
	}
	if _, err := NewSealer(); err == nil {
		t.Error("a sealer without keys")
	}
	if _, err := NewSealer(NewKey("e_1", "short")); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("a short key: %v", err)
	}
}
