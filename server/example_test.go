package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/apikeys-dev/apikeys/server"
	"github.com/apikeys-dev/apikeys/server/masked"
)

// A program that embeds the server makes one, runs it until a context ends, and
// calls it as every other program does: here over REST, to create a key and verify
// it.
func Example() {
	dir, err := os.MkdirTemp("", "apikeys")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s, err := server.New(ctx, server.Config{
		RESTAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", DataDir: dir,
		RootToken: masked.New("a-root-token-of-24-characters-or-more"),
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	post := func(path, body string, data any) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.RESTAddr().String()+path, strings.NewReader(body))
		if err != nil {
			fmt.Println(err)
			return
		}
		req.Header.Set("Authorization", "Bearer a-root-token-of-24-characters-or-more")
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err == nil {
			err = json.Unmarshal(text, &struct{ Data any }{data})
		}
		if err != nil {
			fmt.Println(err)
		}
	}
	var key struct{ Secret string }
	post("/developers/api_keys", `{"label": "Acme", "scopes": ["invoices.read"]}`, &key)
	var verification struct {
		Valid bool
		Code  string
	}
	post("/developers/api_keys/verify", `{"key": "`+key.Secret+`", "scopes": ["invoices.read"]}`, &verification)
	fmt.Println(verification.Valid, verification.Code)
	http.DefaultClient.CloseIdleConnections()
	stop()
	fmt.Println("stopped:", <-done)
	// Output:
	// true valid
	// stopped: <nil>
}

// New tells a faulty configuration by the name of its setting, before anything is
// opened.
func ExampleNew() {
	_, err := server.New(context.Background(), server.Config{RESTAddr: "8080"})
	fmt.Println(err)
	// Output:
	// rest_addr: must be host:port, such as 127.0.0.1:8080 or [::1]:8080, not "8080"
}
