package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hanmadi/hanmadi/internal/chatlog"
	"github.com/hanmadi/hanmadi/internal/token"
)

type tokenCmd struct {
	User       string        `arg:"" help:"User id; a presenter's names their room."`
	Nickname   string        `help:"Name shown beside lines."`
	Attrs      string        `help:"JSON object that travels with the user's lines: badge, colour."`
	For        time.Duration `default:"12h" help:"How long the token holds."`
	Operator   bool          `help:"Sign with the operator's secret: the platform itself."`
	ConfigPath string        `name:"config" placeholder:"FILE" help:"YAML file of settings, as for serve."`
	Log        LogConfig     `embed:"" prefix:"log."`
	Token      TokenConfig   `embed:"" prefix:"token."`
}

// Help is shown under --help.
func (tokenCmd) Help() string {
	return "Signs with the configured token.secret, or, where none is configured, with the one that dev keeps beside its log."
}

// Run prints a token.
func (c *tokenCmd) Run(s streams, file *configFile) error {
	cfg := Config{Log: c.Log, Token: c.Token}
	if err := file.secrets(cfg.secrets()); err != nil {
		return usageError{err}
	}
	text, name := cfg.Token.Secret, "token.secret"
	if c.Operator {
		text, name = cfg.Token.OperatorSecret, "operator.secret"
	}
	if text == "" {
		path, err := chatlog.Path(c.Log.URL)
		if err != nil {
			return usageError{err}
		}
		kept := filepath.Join(filepath.Dir(path), name)
		if _, err := os.Stat(kept); err != nil {
			return usageError{fmt.Errorf("no secret to sign with: none is configured, and dev has left none at %s", kept)}
		}
		if text, err = ownSecret(kept); err != nil {
			return err
		}
	}
	secret, err := token.ParseSecret(text, c.Token.SecretEncoding)
	if err != nil {
		return usageError{err}
	}
	claims := token.Claims{UserID: c.User, Nickname: c.Nickname, Issuer: c.Token.Issuer, Audience: c.Token.Audience, Expires: time.Now().Add(c.For), Names: c.Token.claimNames()}
	if c.Attrs != "" {
		claims.Attrs = json.RawMessage(c.Attrs)
	}
	signed, err := token.Mint(secret, claims)
	if err != nil {
		return usageError{err}
	}
	fmt.Fprintln(s.out, signed)
	return nil
}
