package feed_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/keyring"
)

var (
	newKey = keyring.NewKey("c_2", strings.Repeat("n", 32))
	oldKey = keyring.NewKey("c_1", strings.Repeat("o", 32))
)

func newCursors(tb testing.TB, database string, keys ...keyring.Key) *feed.Cursors {
	tb.Helper()
	sealer, err := keyring.NewSealer(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return feed.NewCursors(database, sealer)
}

func TestCursors(t *testing.T) {
	t.Parallel()
	c := newCursors(t, "db", newKey, oldKey)
	seal := func(c *feed.Cursors, p feed.Purpose, organization string) string {
		if p == feed.PurposePage {
			return c.SealPage(1234567, organization, "list")
		}
		return c.Seal(1234567, organization)
	}
	good := seal(c, feed.PurposeCursor, "org_a")
	flipped := []byte(good)
	flipped[40] ^= 1
	cases := map[string]struct {
		cursor, organization string
		want                 error
	}{
		"good":                          {good, "org_a", nil},
		"under the key before":          {seal(newCursors(t, "db", oldKey), feed.PurposeCursor, "org_a"), "org_a", nil},
		"of one, read by all":           {good, "", nil},
		"of all, read by all":           {seal(c, feed.PurposeCursor, ""), "", nil},
		"of all, read by one":           {seal(c, feed.PurposeCursor, ""), "org_a", feed.ErrOtherOrganization},
		"of another organization":       {good, "org_b", feed.ErrOtherOrganization},
		"of another database":           {seal(newCursors(t, "other", newKey), feed.PurposeCursor, "org_a"), "org_a", feed.ErrOtherDatabase},
		"under another key":             {seal(newCursors(t, "db", keyring.NewKey("c_2", strings.Repeat("x", 32))), feed.PurposeCursor, "org_a"), "org_a", feed.ErrForged},
		"for a page":                    {seal(c, feed.PurposePage, "org_a"), "org_a", feed.ErrOtherPurpose},
		"for a page of the key before":  {seal(newCursors(t, "db", oldKey), feed.PurposePage, "org_a"), "org_a", feed.ErrOtherPurpose},
		"empty":                         {"", "org_a", feed.ErrForged},
		"a word":                        {"start", "org_a", feed.ErrForged},
		"a number":                      {"1234567", "org_a", feed.ErrForged},
		"cut":                           {good[:len(good)-1], "org_a", feed.ErrForged},
		"longer":                        {good + "A", "org_a", feed.ErrForged},
		"one bit changed":               {string(flipped), "org_a", feed.ErrForged},
		"padded":                        {good + "=", "org_a", feed.ErrForged},
		"other letters of the same":     {alias(good), "org_a", feed.ErrForged},
		"zeros":                         {base64.RawURLEncoding.EncodeToString(make([]byte, 68)), "org_a", feed.ErrForged},
		"line breaks, which base64 has": {good[:20] + "\n" + good[20:], "org_a", feed.ErrForged},
	}
	for name, tc := range cases {
		position, err := c.Open(tc.cursor, tc.organization)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
		if tc.want == nil && position != 1234567 {
			t.Errorf("%s: got %d", name, position)
		}
	}
	if again := seal(c, feed.PurposeCursor, "org_a"); again == good || len(again) != len(seal(c, feed.PurposeCursor, strings.Repeat("o", 128))) {
		t.Error("a cursor tells something of what is in it")
	}
}

func TestPageTokens(t *testing.T) {
	t.Parallel()
	c := newCursors(t, "db", newKey, oldKey)
	good := c.SealPage(7, "org_a", "list")
	for name, tc := range map[string]struct {
		token, organization, list string
		want                      error
	}{
		"good":                    {good, "org_a", "list", nil},
		"of one, read by all":     {good, "", "list", nil},
		"of another list":         {good, "org_a", "other", feed.ErrOtherList},
		"of another organization": {good, "org_b", "list", feed.ErrOtherOrganization},
		"of another database":     {newCursors(t, "other", newKey).SealPage(7, "org_a", "list"), "org_a", "list", feed.ErrOtherDatabase},
		"a cursor":                {c.Seal(7, "org_a"), "org_a", "list", feed.ErrOtherPurpose},
		"cut":                     {good[:len(good)-1], "org_a", "list", feed.ErrForged},
		"empty":                   {"", "org_a", "list", feed.ErrForged},
	} {
		position, err := c.OpenPage(tc.token, tc.organization, tc.list)
		if !errors.Is(err, tc.want) || err == nil && position != 7 {
			t.Errorf("%s: %d, %v, want %v", name, position, err, tc.want)
		}
	}
}

// alias returns another text with the same bytes, in the bits that base64 leaves
// over, or one that is certainly wrong where there are none.
func alias(text string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(letters, text[len(text)-1])
	return text[:len(text)-1] + letters[last^1:last^1+1]
}
