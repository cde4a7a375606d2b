package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/contexts"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/device"
	"github.com/apikeys-dev/apikeys/cmd/apikeys/internal/output"
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
)

// defaultContext is the name of a context that was given none.
const defaultContext = "default"

// loginCommand stores a token.
type loginCommand struct {
	Issuer   string   `group:"fields" placeholder:"URL" help:"The OpenID Connect issuer to get the token from, instead of asking for one."`
	ClientID string   `group:"fields" name:"client-id" default:"apikeys" placeholder:"ID" help:"The name that the issuer knows this program under."`
	Scope    []string `group:"fields" default:"openid,offline_access" placeholder:"SCOPE" help:"What to ask the issuer for; offline_access for a token that can be renewed."`
	Audience string   `group:"fields" placeholder:"NAME" help:"The API that the issuer's token is to be for, where the issuer wants to know."`
	Store    string   `group:"fields" enum:"auto,keyring,file" default:"auto" help:"Where to keep the token: keyring, file, or auto for the first of the two that works."`

	clientSettings `embed:""`
}

// Run asks for a token, tries it, stores it, and makes its context the current one.
func (c *loginCommand) Run(ctx context.Context, parsed *kong.Context, sources *sources, out streams) error {
	dir, name := sources.dir(), cmp.Or(sources.contextName, defaultContext)
	if err := contexts.CheckName(name); err != nil {
		return usageError{err}
	}
	if sources.elsewhere && !sources.contextFirst {
		return usageError{fmt.Errorf("context %s is for another server; name the context of %s with --context NAME", name, c.Address)}
	}
	connection, err := c.unauthenticated()
	if err != nil {
		return err
	}
	if !onCommandLine(parsed, "token-file") {
		c.TokenFile = "" // What is set for other commands is not what is to be stored.
	}
	credential, err := c.credential(ctx, out, connection)
	if err != nil {
		return err
	}
	if connection.token, err = checkToken(credential.Token, "the token"); err != nil {
		return err
	}
	me, err := whoami(ctx, connection)
	if err != nil {
		return explainStatus(connection.address, err)
	}
	credential.Token = connection.token.Reveal()
	stored, reason, err := dir.SetCredential(name, credential, c.Store)
	if err != nil {
		return err
	}
	if reason != nil && c.Store == "auto" && sources.keyring != nil {
		fmt.Fprintf(out.stderr, "apikeys: the keyring of the system cannot be used (%s); the token is in %s\n", output.Printable(reason.Error()), filepath.Join(dir.Path, "credentials"))
	}
	err = dir.Update(func(f *contexts.File) error {
		if f.Contexts[name] == nil && len(f.Contexts) >= contexts.MaxContexts {
			return fmt.Errorf("there are %d contexts, which are the most; delete one first", len(f.Contexts))
		}
		caFile := c.CAFile
		if caFile != "" {
			if caFile, err = filepath.Abs(caFile); err != nil {
				return err
			}
		}
		f.Contexts[name] = &contexts.Context{Address: c.Address, Organization: c.Organization, TLS: c.TLS, CAFile: caFile, Credential: stored}
		f.Current = name
		return nil
	})
	if err != nil {
		return err
	}
	if _, shadowed := sources.env["APIKEYS_TOKEN"]; shadowed {
		fmt.Fprintln(out.stderr, "apikeys: APIKEYS_TOKEN is set and wins over what is stored, unless --context names the context")
	}
	who := cmp.Or(me.GetActor().GetName(), me.GetActor().GetId())
	_, err = fmt.Fprintf(out.stdout, "Logged in to %s as %s (%s), context %s.\n", connection.address, output.Printable(who), me.GetActor().GetKind(), name)
	return err
}

// credential gets a token: from the issuer, from the file that is named, or from whoever
// is asked.
func (c *loginCommand) credential(ctx context.Context, out streams, connection *connection) (*contexts.Credential, error) {
	switch {
	case c.Issuer != "":
		token, err := device.Config{Issuer: c.Issuer, ClientID: c.ClientID, Scopes: c.Scope, Audience: c.Audience}.Login(ctx, func(p device.Prompt) error {
			fmt.Fprintf(out.stderr, "Open %s and enter the code %s\n", output.Printable(p.URL), output.Printable(p.Code))
			if p.Complete != "" {
				fmt.Fprintf(out.stderr, "or open %s\n", output.Printable(p.Complete))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		return &contexts.Credential{Token: token.AccessToken, ExpiresAt: token.Expiry, RefreshToken: token.RefreshToken, Issuer: c.Issuer, ClientID: c.ClientID}, nil
	case c.TokenFile != "":
		token, err := readTokenFile(c.TokenFile)
		return &contexts.Credential{Token: token.Reveal()}, err
	}
	token, err := out.readSecret(ctx, "Access token or API key for "+connection.address+": ")
	return &contexts.Credential{Token: token}, err
}

// whoami asks the server who the caller is.
func whoami(ctx context.Context, connection *connection) (*apikeysv1.Caller, error) {
	conn, err := connection.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := once(connection.as(ctx), apikeysv1.NewCallersServiceClient(conn).GetCaller, &apikeysv1.GetCallerRequest{})
	return answer.GetCaller(), err
}

// logoutCommand forgets a token.
type logoutCommand struct{ contextChoice }

// contextChoice names a context; none means the current one.
type contextChoice struct {
	Context string `group:"connection" placeholder:"NAME" complete:"contexts" help:"The context; the current one if none is named."`
}

// Run forgets the token of the context, which stays.
func (c *logoutCommand) Run(sources *sources, out streams) error {
	if sources.context == nil {
		return errors.New("there is no context to log out of; apikeys context list shows those that there are")
	}
	name := sources.contextName
	err := sources.dir().Update(func(f *contexts.File) error {
		found := f.Contexts[name]
		if found == nil || found.Credential == "" {
			return fmt.Errorf("context %s has no stored token", name)
		}
		if err := sources.dir().DeleteCredential(name, found); err != nil {
			return err
		}
		found.Credential = ""
		return nil
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.stdout, "Logged out of context %s. The token works on: end it with apikeys tokens delete, or apikeys keys revoke.\n", name)
	return err
}
