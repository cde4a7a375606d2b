package apikey

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func basic(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }

func TestCredential(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		authorization, apiKey []string
		part                  []Basic
		want                  string
		fails                 bool
	}{
		"bearer":                     {authorization: []string{"Bearer abc"}, want: "abc"},
		"bearer in another case":     {authorization: []string{"bEARER   abc "}, want: "abc"},
		"bare":                       {authorization: []string{"abc"}, want: "abc"},
		"x-api-key":                  {apiKey: []string{"abc"}, want: "abc"},
		"the same twice":             {authorization: []string{"Bearer abc", "abc"}, apiKey: []string{"abc"}, want: "abc"},
		"two that differ":            {authorization: []string{"Bearer abc"}, apiKey: []string{"abd"}, fails: true},
		"two lines that differ":      {authorization: []string{"abc", "abd"}, fails: true},
		"an empty one beside":        {authorization: []string{""}, apiKey: []string{"abc"}, want: "abc"},
		"none":                       {fails: true},
		"empty":                      {authorization: []string{"Bearer "}, apiKey: []string{" "}, want: "Bearer"},
		"longer than any credential": {authorization: []string{strings.Repeat("a", 600)}, fails: true},
		"a URI":                      {authorization: []string{"Bearer secret-token:abc"}, want: "abc"},
		"a URI in another case":      {apiKey: []string{"Secret-Token:abc"}, want: "abc"},
		"a URI and the same bare":    {authorization: []string{"Bearer secret-token:abc"}, apiKey: []string{"abc"}, want: "abc"},
		"another scheme":             {authorization: []string{basic("abc:")}, want: basic("abc:")},
		"another scheme beside":      {authorization: []string{basic("abc:")}, apiKey: []string{"abc"}, fails: true},
		"user of Basic":              {authorization: []string{basic("abc:")}, part: []Basic{BasicUser}, want: "abc"},
		"password of Basic":          {authorization: []string{basic("x:secret-token:abc")}, part: []Basic{BasicPassword}, want: "abc"},
		"both that differ":           {authorization: []string{basic("x:abc")}, part: []Basic{BasicUser, BasicPassword}, fails: true},
		"Basic without a colon":      {authorization: []string{basic("abc")}, part: []Basic{BasicUser}, want: basic("abc")[6:]},
		"Basic that is none":         {authorization: []string{"Basic ???"}, part: []Basic{BasicUser}, want: "???"},
		"Basic beside another":       {authorization: []string{basic("abc:")}, part: []Basic{BasicUser}, apiKey: []string{"abd"}, fails: true},
		"not Basic":                  {authorization: []string{"Bearer abc"}, part: []Basic{BasicUser}, fails: true},
		"Basic without anything":     {authorization: []string{"Basic"}, part: []Basic{BasicUser}, fails: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c Credential
			if tc.part == nil {
				c.AddAuthorization(tc.authorization)
			}
			for _, part := range tc.part {
				c.AddBasic(tc.authorization, part)
			}
			c.Add(tc.apiKey)
			got, err := c.Text()
			if (err != nil) != tc.fails || got != tc.want {
				t.Errorf("the credential is %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

// FuzzCredential has no credential read that the request did not carry, and none that is
// longer than any.
func FuzzCredential(f *testing.F) {
	f.Add("Bearer abc", "abc", basic("abc:abc"))
	f.Add("bearer secret-token:abc", "", "Basic x")
	f.Add("Basic ", "secret-token:", "Basic "+strings.Repeat("QUFB", 1000))
	f.Fuzz(func(t *testing.T, authorization, apiKey, basic string) {
		var c Credential
		c.AddAuthorization([]string{authorization})
		c.AddBasic([]string{basic}, BasicUser)
		c.AddBasic([]string{basic}, BasicPassword)
		c.Add([]string{apiKey})
		text, err := c.Text()
		switch {
		case err == nil && (text == "" || len(text) > MaxSecretLength && !HasIdentityTokenForm(text) || strings.TrimSpace(text) == ""):
			t.Errorf("the credential is %q", text)
		case err != nil && text != "":
			t.Errorf("%q comes with %v", text, err)
		case errors.Is(err, ErrNoCredential) && strings.TrimSpace(BareSecret(strings.TrimSpace(apiKey))) != "":
			t.Errorf("%q is not seen", apiKey)
		}
	})
}
