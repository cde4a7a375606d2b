package feed_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/feed"
	"github.com/apikeys-dev/apikeys/server/keyring"
)

// A follower reads what there is, waits, and reads on after a commit.
func ExampleFeed_Follow() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	log := new(memoryLog)
	f, err := feed.New(ctx, feed.Config{Log: log})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	follower, err := f.Follow(ctx, apikey.EventFilter{Organization: "org_a"}, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	change := func(organization, key string) {
		position := log.add(organization, key)
		f.Notify(position) // after the commit
	}
	change("org_a", "api_key_1")
	change("org_b", "api_key_2") // of others: the follower does not see it
	change("org_a", "api_key_3")
	for seen := 0; seen < 2; {
		entries, wait, err := follower.Read(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, e := range entries {
			fmt.Println(e.Event.Position, e.Event.Type, e.Event.ResourceID)
			seen++
		}
		if wait != nil { // All is read: wait for the next commit that concerns org_a.
			<-wait
		}
	}
	follower.Close()
	stop()
	fmt.Println("feed ended:", <-done)
	// Output:
	// 1 api_key.created api_key_1
	// 3 api_key.created api_key_3
	// feed ended: <nil>
}

// A cursor is a sealed position, good for the organization that it was given to.
func ExampleCursors() {
	sealer, err := keyring.NewSealer(keyring.NewKey("c_1", strings.Repeat("k", 32)))
	if err != nil {
		fmt.Println(err)
		return
	}
	cursors := feed.NewCursors("database_1", sealer)
	cursor := cursors.Seal(42, "org_a")
	fmt.Println(cursors.Open(cursor, "org_a"))
	fmt.Println(cursors.Open(cursor, "org_b"))
	fmt.Println(cursors.Open("42", "org_a"))
	// Output:
	// 42 <nil>
	// 0 a cursor of another organization
	// 0 not a cursor of this server
}
