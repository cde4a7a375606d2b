package api

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// anyScope is what a method's rule says that every caller may call who proved
// itself.
const anyScope = "any"

// methods holds what each method asks of its caller, by full method name.
type methods map[string]apikey.Requirement

// methodsOf reads the rule of every method of services. A method without one, or
// with a scope that no catalogue could hold, is an error, so that a new method
// cannot be served before someone has said who may call it.
func methodsOf(services []*grpc.ServiceDesc) (methods, error) {
	known := map[string]bool{anyScope: true}
	for _, s := range append(apikey.ServerScopes(), apikey.OperatorScopes()...) {
		known[s] = true
	}
	table := make(methods)
	for _, desc := range services {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
		if err != nil {
			return nil, fmt.Errorf("find service %s: %w", desc.ServiceName, err)
		}
		all := found.(protoreflect.ServiceDescriptor).Methods()
		for i := range all.Len() {
			method := all.Get(i)
			rule, _ := proto.GetExtension(method.Options(), apikeysv1.E_Rule).(*apikeysv1.MethodRule)
			scopes := append([]string{rule.GetScope()}, rule.GetFurtherScopes()...)
			if slices.ContainsFunc(scopes, func(s string) bool { return !known[s] }) {
				return nil, fmt.Errorf("method %s has no (apikeys.v1.rule) with scopes that the server knows", method.FullName())
			}
			required := apikey.Requirement{
				AnyOrganization: rule.GetAnyOrganization(), NoOrganization: rule.GetNoOrganization(), CurrentSecret: rule.GetCurrentSecret(),
			}
			if rule.GetScope() != anyScope {
				required.Scopes = scopes
			}
			table["/"+desc.ServiceName+"/"+string(method.Name())] = required
		}
	}
	return table, nil
}

// ListScopes lists the scopes that keys can be given.
func (s *apiKeys) ListScopes(context.Context, *apikeysv1.ListScopesRequest) (*apikeysv1.ListScopesResponse, error) {
	return &apikeysv1.ListScopesResponse{Scopes: s.scopes}, nil
}

// scopesOf returns the message of each scope of catalogue, with the methods of
// services whose rules ask for it.
func scopesOf(catalogue []string, services []*grpc.ServiceDesc) []*apikeysv1.Scope {
	list := make([]*apikeysv1.Scope, len(catalogue))
	byName := make(map[string]*apikeysv1.Scope, len(catalogue))
	for i, name := range catalogue {
		list[i] = &apikeysv1.Scope{Name: name}
		byName[name] = list[i]
	}
	for _, desc := range services {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
		if err != nil {
			continue // methodsOf has said so
		}
		service := found.(protoreflect.ServiceDescriptor)
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			rule, _ := proto.GetExtension(method.Options(), apikeysv1.E_Rule).(*apikeysv1.MethodRule)
			for _, name := range append([]string{rule.GetScope()}, rule.GetFurtherScopes()...) {
				if scope := byName[name]; scope != nil {
					scope.Methods = append(scope.Methods, string(service.Name())+"."+string(method.Name()))
					scope.Routes = append(scope.Routes, routesOf(method)...)
				}
			}
		}
	}
	return list
}

// oneWord is a segment of a path that gives a field and can be one word only.
var oneWord = regexp.MustCompile(`\{\w+=(\w+)\}`)

// routesOf returns the paths of a method over REST, each after its HTTP method.
func routesOf(method protoreflect.MethodDescriptor) []string {
	rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	var routes []string
	for _, binding := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		for _, r := range []struct{ method, path string }{
			{"GET", binding.GetGet()}, {"POST", binding.GetPost()}, {"PUT", binding.GetPut()},
			{"PATCH", binding.GetPatch()}, {"DELETE", binding.GetDelete()},
		} {
			if r.path != "" {
				routes = append(routes, r.method+" "+oneWord.ReplaceAllString(r.path, "$1"))
			}
		}
	}
	return routes
}
