package server_test

import "testing"

// TestPreviousSecret plays what may be done with the previous secret of a key: what the
// key may, but nothing that outlives the secret, and nothing that decides about the
// key, or lasts like a webhook.
func TestPreviousSecret(t *testing.T) {
	t.Parallel()
	const exceeds, previous, in, current = "EXCEEDS_CALLER", "PREVIOUS_SECRET", "$c.secret", "$new.secret"
	// rotated is a key with every scope, whose secret as $c is the previous one.
	rotated := scenario{
		{rpc: "CreateApiKey", body: `{"label": "caller", "scopes": ["*"]}`, save: "c"},
		{rpc: "RotateApiKey", id: "$c.id", body: `{"overlap_seconds": 3600}`, save: "new"},
	}
	create := func(body, want string) step {
		return step{rpc: "CreateApiKey", as: in, body: `{"label": "x"` + body + `}`, want: want}
	}
	other := func(body, want string) step {
		return step{rpc: "UpdateApiKey", as: in, id: "$k.id", body: `{` + body + `}`, want: want}
	}
	own := func(body, want string) step {
		return step{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{` + body + `}`, want: want}
	}
	rotate := func(id, body, want string) step {
		return step{rpc: "RotateApiKey", as: in, id: id, body: body, want: want}
	}
	lasting := func(s step) step {
		s.as, s.want, s.save, s.data = in, previous, "", ""
		return s
	}
	hook := func(s step) step { s.id = "$w.id"; return s }
	newHarness(t).play(t, map[string]scenario{
		"makes nothing that outlives it": append(rotated[:2:2],
			create(``, exceeds), create(`, "expires_at": "$in(2h)"`, exceeds), create(`, "expires_at": "$in(1h1s)"`, exceeds), create(`, "expires_at": "$in(1h)"`, ""), create(`, "expires_at": "$in(59m)"`, ""),
			step{rpc: "CreateApiKey", body: `{"label": "k", "expires_at": "$in(59m)"}`, save: "k"},
			other(`"expires_at": null`, exceeds), other(`"expires_at": "$in(2h)"`, exceeds), other(`"label": "y"`, ""), rotate("$k.id", endNow, ""),
			step{rpc: "CreateApiKey", body: `{"label": "k"}`, save: "k"},
			rotate("$k.id", endNow, exceeds), other(`"enabled": false`, ""), other(`"enabled": true`, exceeds),
			step{rpc: "CreateApiKey", as: current, body: `{"label": "x", "scopes": ["*"]}`}),
		"does not change its own key": append(rotated[:2:2],
			rotate("$c.id", endNow, previous), rotate("$c.id", `{"overlap_seconds": 0, "end_previous": true}`, previous), rotate("$c.id", `{"overlap_seconds": 60, "end_previous": true}`, previous),
			own(`"label": "mine"`, previous), own(`"label": "caller"`, previous), own(`"scopes": []`, previous), own(`"expires_at": "$in(1m)"`, previous), own(`"enabled": false`, previous),
			own(`"rate_limit": {"requests": 1, "window_seconds": 1}`, previous), own(`"label": ""`, previous), own(``, previous), step{rpc: "UpdateApiKey", as: in, verb: "PUT", id: "$c.id", body: `{"label": "mine"}`, want: previous},
			step{rpc: "UpdateApiKey", as: in, id: "$c.id", body: `{"label": "mine"}`, match: `"9"`, want: previous},
			step{rpc: "UpdateApiKey", as: current, id: "$c.id", body: `{"label": "mine"}`},
			step{rpc: "RotateApiKey", as: current, id: "$c.id", body: endNow, want: "ROTATION_IN_PROGRESS"},
			step{rpc: "RotateApiKey", as: current, id: "$c.id", body: `{"overlap_seconds": 0, "end_previous": true}`},
			step{rpc: "ListApiKeys", as: in, want: "UNAUTHENTICATED"}, step{rpc: "ListApiKeys", as: current, want: "UNAUTHENTICATED"}),
		"may end its own key": append(rotated[:2:2],
			step{rpc: "RevokeApiKey", as: in, id: "$c.id"}, step{rpc: "ListApiKeys", as: current, want: "UNAUTHENTICATED"}),
		"makes and changes no webhook": append(rotated[:2:2],
			newHook(""), step{rpc: "TestWebhook", id: "$w.id", as: in, save: "d"},
			lasting(newHook("")), lasting(newHook(`, "enabled": false`)), lasting(newHook("").replacing("Billing", "")),
			lasting(hook(step{rpc: "UpdateWebhook", body: `{"label": "x"}`})), lasting(hook(step{rpc: "UpdateWebhook", body: `{}`})), lasting(hook(step{rpc: "UpdateWebhook", body: `{"url": "https://x.invalid/"}`})),
			lasting(hook(step{rpc: "UpdateWebhook", verb: "PUT", body: `{"label": "x"}`})),
			lasting(hook(step{rpc: "RotateWebhookSecret"})), lasting(hook(step{rpc: "ReplayEvents", body: `{"since": "$in(-1h)"}`})),
			step{rpc: "ReplayEvents", id: "webhook_none", as: in, body: `{"since": "$in(-1h)"}`, want: previous},
			step{rpc: "GetWebhook", id: "$w.id", as: in}, step{rpc: "CancelDelivery", id: "$d.id", as: in}, step{rpc: "RetryDelivery", id: "$d.id", as: in},
			step{rpc: "RetryDeliveries", id: "$w.id", as: in, body: `{"states": ["failed"]}`},
			step{rpc: "UpdateWebhook", id: "$w.id", as: current, body: `{"label": "x"}`}, step{rpc: "DeleteWebhook", id: "$w.id", as: in}),
	})
}

// TestLastingGrant plays which changes of a webhook need events.read: those by which
// somebody comes to receive events who did not.
func TestLastingGrant(t *testing.T) {
	t.Parallel()
	const lacks = "INSUFFICIENT_SCOPE"
	steps := map[string]struct {
		call  step
		needs bool
	}{
		"create":            {newHook("").saved(""), true},
		"create disabled":   {newHook(`, "enabled": false`).saved(""), true},
		"url":               {step{rpc: "UpdateWebhook", body: `{"url": "https://x.invalid/y"}`}, true},
		"events":            {step{rpc: "UpdateWebhook", body: `{"events": ["*"]}`}, true},
		"headers":           {step{rpc: "UpdateWebhook", body: `{"headers": {"X-A": "b"}}`}, true},
		"enabling":          {step{rpc: "UpdateWebhook", id: "$off.id", body: `{"enabled": true}`}, true},
		"put with a url":    {step{rpc: "UpdateWebhook", verb: "PUT", body: `{"label": "x", "url": "https://x.invalid/z"}`}, true},
		"rotation":          {step{rpc: "RotateWebhookSecret"}, true},
		"replay":            {step{rpc: "ReplayEvents", body: `{"since": "$in(-1h)"}`}, true},
		"label":             {step{rpc: "UpdateWebhook", body: `{"label": "x", "description": "y"}`}, false},
		"format":            {step{rpc: "UpdateWebhook", body: `{"format": "standard"}`}, false},
		"disabling":         {step{rpc: "UpdateWebhook", body: `{"enabled": false}`}, false},
		"a url as it was":   {step{rpc: "UpdateWebhook", body: `{"url": "https://hooks.invalid/x?token=hunter2", "events": ["webhook.failing"], "enabled": true}`, quiet: true}, false},
		"test":              {step{rpc: "TestWebhook"}, false},
		"delete":            {step{rpc: "DeleteWebhook"}, false},
		"retry":             {step{rpc: "RetryDelivery", id: "$d.id"}, false},
		"retry of many":     {step{rpc: "RetryDeliveries", body: `{"states": ["pending"]}`}, false},
		"cancel":            {step{rpc: "CancelDelivery", id: "$d.id"}, false},
		"put without a url": {step{rpc: "UpdateWebhook", verb: "PUT", body: `{"label": "x"}`}, false},
	}
	const scopes = `"webhooks.create", "webhooks.update", "webhooks.delete", "webhooks_queue.update"`
	scenarios := make(map[string]scenario)
	for name, c := range steps {
		if c.call.id == "" && c.call.rpc != "CreateWebhook" {
			c.call.id = "$w.id"
		}
		without, with := c.call, c.call
		without.as, with.as = "$without.secret", "$with.secret"
		if c.needs {
			without.want = lacks
		}
		play := scenario{
			newHook(`, "enabled": false`).saved("off"), newHook(""), {rpc: "TestWebhook", id: "$w.id", save: "d"},
			{rpc: "CreateApiKey", body: `{"label": "x", "scopes": [` + scopes + `]}`, save: "without"},
			{rpc: "CreateApiKey", body: `{"label": "x", "scopes": [` + scopes + `, "events.read"], "expires_at": "$in(1h)"}`, save: "with"},
			without,
		}
		if c.needs {
			play = append(play, with)
		}
		scenarios[name] = play
	}
	newHarness(t).play(t, scenarios)
}
