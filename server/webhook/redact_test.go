package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestKeptAnswer(t *testing.T) {
	t.Parallel()
	const long = "Bearer abcdefghijklmnop\"<q>&"
	hook := func(values ...string) *Webhook {
		w := testWebhook()
		w.Headers = nil
		for _, v := range values {
			w.Headers = append(w.Headers, Header{Name: "X", Value: NewHeaderValue(v)})
		}
		return &w
	}
	inJSON, err := json.Marshal(map[string]string{"x": long})
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name string
		w    *Webhook
		body string
		want string
	}{
		{"nothing", hook("hunter3"), "", ""},
		{"nothing of it", hook("hunter3"), "hunter2", "hunter2"},
		{"a header value", hook("hunter3"), "you sent hunter3.", "you sent ********."},
		{"the secret", hook(), "it was " + testSecret.Reveal() + "!", "it was ********!"},
		{"short ones are none", hook("a"), "banana", "banana"},
		{"one that holds another", hook("hunter", "hunter3000"), "hunter3000 hunter", "******** ********"},
		{"two that overlap", hook("abcX", "Xdef"), "1abcXdef2", "1********2"},
		{"one that overlaps itself", hook("abab"), "1ababab2", "1********2"},
		{"as JSON", hook(long), string(inJSON), `{"x":"********"}`},
		{"as HTML", hook(long), "<p>Bearer abcdefghijklmnop&#34;&lt;q&gt;&amp;</p>", "<p>********</p>"},
		{"in a query", hook(long), "?x=Bearer+abcdefghijklmnop%22%3Cq%3E%26", "?x=********"},
		{"its credential alone", hook("Bearer abcdefghijklmnop"), "token=abcdefghijklmnop", "token=********"},
		{"a password", hook("Basic " + base64.StdEncoding.EncodeToString([]byte("me:hunter3"))), "pw hunter3", "pw ********"},
		{"cut off within it", hook("hunter3000"), "x hunter30", "x ********"},
		{"across the end of what is kept", hook("hunter3000"), strings.Repeat("x", MaxKeptAnswer-4) + "hunter3000" + "y", strings.Repeat("x", MaxKeptAnswer-4) + "****"},
		{"many, and cut off within the last", hook(strings.Repeat("s", 40) + "END"), strings.Repeat(strings.Repeat("s", 40)+"END", 2) + strings.Repeat("s", 30), "************************"},
		{"long", hook("hunter3"), strings.Repeat("y", 64<<10), strings.Repeat("y", MaxKeptAnswer)},
	}
	for _, c := range cases {
		if got := string(c.w.KeptAnswer([]byte(c.body))); got != c.want {
			t.Errorf("%s: got %.80q, want %.80q", c.name, got, c.want)
		}
	}
}

// Wherever a value stands in an answer, and wherever the answer is cut, nothing of it is
// kept that is longer than what is too short for a secret.
func TestNothingOfAValueIsKept(t *testing.T) {
	t.Parallel()
	value := []byte("Zq3vXw9Kp7")
	rapid.Check(t, func(t *rapid.T) {
		w := testWebhook()
		w.Headers = []Header{{Name: "X", Value: NewHeaderValue(string(value))}}
		body := bytes.Repeat([]byte("."), rapid.IntRange(MaxKeptAnswer-40, MaxKeptAnswer+40).Draw(t, "before"))
		for range rapid.IntRange(1, 5).Draw(t, "times") {
			body = append(body, value...)
		}
		body = body[:rapid.IntRange(len(body)-2*len(value), len(body)).Draw(t, "cut")]
		kept := w.KeptAnswer(body)
		for n := minRedacted; n <= len(value); n++ {
			if bytes.Contains(kept, value[:n]) {
				t.Fatalf("%d bytes of it are kept", n)
			}
		}
	})
}
