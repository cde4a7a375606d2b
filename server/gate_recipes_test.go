package server_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3" // its type
	managerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3" // its type
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

// readYAML reads a recipe as JSON.
func readYAML(t *testing.T, recipe string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../deploy/gateways", recipe))
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := yaml.Unmarshal(data, &value); err != nil {
		t.Fatalf("%s: %v", recipe, err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestEnvoyRecipe decodes the recipe of Envoy as Envoy does, by its own protos and their
// rules, and finds in it what keeps a client from cheating.
func TestEnvoyRecipe(t *testing.T) {
	t.Parallel()
	var bootstrap bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(readYAML(t, "envoy/envoy.yaml"), &bootstrap); err != nil {
		t.Fatal(err)
	}
	if err := bootstrap.ValidateAll(); err != nil {
		t.Error(err)
	}
	var manager managerv3.HttpConnectionManager
	if err := bootstrap.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(&manager); err != nil {
		t.Fatal(err)
	}
	if err := manager.ValidateAll(); err != nil {
		t.Error(err)
	}
	var authz extauthzv3.ExtAuthz
	if err := manager.GetHttpFilters()[0].GetTypedConfig().UnmarshalTo(&authz); err != nil {
		t.Fatal(err)
	}
	if err := authz.ValidateAll(); err != nil {
		t.Error(err)
	}
	for what, holds := range map[string]bool{
		"the connection tells the address": manager.GetUseRemoteAddress().GetValue(),
		"underscores are refused":          manager.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction().String() == "REJECT_REQUEST",
		"paths are made plain":             manager.GetNormalizePath().GetValue() && manager.GetMergeSlashes() && manager.GetPathWithEscapedSlashesAction().String() == "REJECT_REQUEST",
		"no answer is no permission":       !authz.GetFailureModeAllow(),
		"lines are not joined":             authz.GetEncodeRawHeaders(),
	} {
		if !holds {
			t.Errorf("it does not hold that %s", what)
		}
	}
	route := manager.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0]
	var perRoute extauthzv3.ExtAuthzPerRoute
	if err := route.GetTypedPerFilterConfig()["envoy.filters.http.ext_authz"].UnmarshalTo(&perRoute); err != nil || perRoute.GetCheckSettings().GetContextExtensions()["scope"] != "products.read" {
		t.Errorf("the route asks for %v, %v", &perRoute, err)
	}
}

// TestRecipesNameEveryHeader finds each header of identity in each recipe that copies
// them one by one.
func TestRecipesNameEveryHeader(t *testing.T) {
	t.Parallel()
	for _, recipe := range []string{"nginx/apikeys.conf", "caddy/Caddyfile", "haproxy/apikeys.lua", "traefik/dynamic.yaml", "kong/kong.yaml", "apisix/route.yaml"} {
		data, err := os.ReadFile(filepath.Join("../deploy/gateways", recipe))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range identityHeaders {
			if !strings.Contains(strings.ToLower(string(data)), strings.ToLower(name)) && !(name == "X-Api-Key-Error" && strings.Contains(string(data), "-X-Api-Key-*")) {
				t.Errorf("%s does not name %s", recipe, name)
			}
		}
		if !strings.HasSuffix(recipe, ".yaml") {
			continue
		}
		readYAML(t, recipe)
	}
}
