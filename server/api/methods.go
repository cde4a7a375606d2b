package api

import (
	"fmt"
	"slices"

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
	for _, s := range apikey.ServerScopes() {
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
				return nil, fmt.Errorf("method %s has no (apikeys.v1.rule) with scopes of apikey.ServerScopes", method.FullName())
			}
			need := apikey.Requirement{AnyOrganization: rule.GetAnyOrganization(), CurrentSecret: rule.GetCurrentSecret()}
			if rule.GetScope() != anyScope {
				need.Scopes = scopes
			}
			table["/"+desc.ServiceName+"/"+string(method.Name())] = need
		}
	}
	return table, nil
}
