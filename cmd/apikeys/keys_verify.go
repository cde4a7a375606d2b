package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// codeRefused is what the program ends with where a key is refused: not an error, and
// not a key to let in.
const codeRefused = 3

// keysVerifyCommand checks a secret.
type keysVerifyCommand struct {
	Scopes []string `group:"fields" placeholder:"SCOPE" complete:"scopes" help:"The scopes that the key must hold, separated by commas."`
	IP     string   `group:"fields" name:"ip" placeholder:"ADDRESS" help:"The address that the key is used from."`
	Cost   *int32   `group:"fields" placeholder:"N" help:"What the call costs of the key's limits. 0 checks and spends nothing. Default: 1."`
	caller `embed:""`
}

// Run prints the code of the answer, or the answer in another form. The program ends
// with 0 where the key is valid, with 3 where it is refused.
func (c *keysVerifyCommand) Run(ctx context.Context, sources *sources, out streams) error {
	if c.Output.IsSecret() {
		return usageError{errors.New("-o secret is for commands that make a secret")}
	}
	secret, err := out.readSecret(ctx, "Secret: ")
	if err != nil {
		return err
	}
	return c.call(ctx, sources, out, "api_key.id", func(ctx context.Context, s *session) error {
		answer, err := once(ctx, s.keys.VerifyApiKey, &apikeysv1.VerifyApiKeyRequest{Key: secret, Scopes: c.Scopes, Ip: c.IP, Cost: c.Cost})
		if err != nil {
			return err
		}
		if c.Output.IsTable() {
			_, err = fmt.Fprintln(out.stdout, wirejson.EnumWords(answer.GetCode().Descriptor())[answer.GetCode().Number()])
		} else {
			err = s.show(answer, nil)
		}
		if in := s.connection.organization; answer.GetCode() == apikeysv1.VerificationCode_VERIFICATION_CODE_NOT_FOUND && in != "*" {
			s.note("no such key in %s; an operator looks in every organization with --organization '*'", cmp.Or(in, "org_default, or the organization of the token"))
		}
		if err == nil && !answer.GetValid() {
			return exitError{errors.New(""), codeRefused}
		}
		return err
	})
}
