package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"
	_ "time/tzdata" // a static image has no zone files

	"go.yaml.in/yaml/v3"

	"github.com/hanmadi/hanmadi/internal/chatlog"
	"github.com/hanmadi/hanmadi/internal/hook"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/token"
)

type serveCmd struct {
	ConfigPath string `name:"config" placeholder:"FILE" help:"YAML file of settings."`
	Config     `embed:""`
}

// Help is shown under --help.
func (serveCmd) Help() string { return secretsHelp() }

// secretsHelp names the settings that have no flag.
func secretsHelp() string {
	var names []string
	for _, s := range new(Config).secrets() {
		names = append(names, envName(s.key))
	}
	return "Secrets have no flags. They are given in the environment or, by their words, in the YAML file, each as itself or as the name of a file in …_FILE: " +
		strings.Join(names, ", ") + "."
}

// Run serves until a signal.
func (c *serveCmd) Run(s streams, file *configFile, signals <-chan os.Signal) error {
	set, err := c.setup(file)
	if err != nil {
		return usageError{err}
	}
	listeners, err := listenAll(c.Listen, c.AdminListen)
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	return serve(set, listeners, c.Logging.logger(s), signals, func() {})
}

// setup reads the secrets and checks everything that can be checked without
// touching the network or the log.
func (c *serveCmd) setup(file *configFile) (setup, error) {
	set, err := c.Config.prepare(file)
	if err = errors.Join(err, c.checkServe()); err != nil {
		return set, err
	}
	set.reread = func() (token.Config, error) { return c.rereadTokens(file) }
	set.key, err = c.sealKey()
	return set, err
}

// rereadTokens reads the secrets and keys of tokens from where they are kept,
// as they are there now.
func (c *Config) rereadTokens(file *configFile) (token.Config, error) {
	now := *c
	if err := file.secrets(now.secrets()); err != nil {
		return token.Config{}, err
	}
	return now.Token.tokens()
}

// prepare turns the settings into what the parts take, or says everything that
// is wrong with them at once.
func (c *Config) prepare(file *configFile) (setup, error) {
	if err := file.secrets(c.secrets()); err != nil {
		return setup{}, err
	}
	set := setup{}
	errs := []error{c.check()}
	take := func(err error) { errs = append(errs, err) }
	var err error
	set.verifier, err = c.Token.tokens()
	take(err)
	set.gateway, err = c.Gateway.gateway()
	take(err)
	set.sign, err = c.Signalling.signer()
	take(err)
	set.zone, err = time.LoadLocation(c.Original.Timezone)
	if err != nil {
		take(fmt.Errorf("original.timezone: %w", err))
	}
	set.Config = *c
	return set, errors.Join(errs...)
}

// gateway reads the networks.
func (c *GatewayConfig) gateway() (token.Gateway, error) {
	g := token.Gateway{Header: c.Header, Secret: []byte(c.Secret)}
	for _, text := range c.From {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return g, fmt.Errorf("gateway.from: %q is not a network such as 10.0.0.0/8", text)
		}
		g.From = append(g.From, network)
	}
	return g, g.Check()
}

// signer is what signs the requests to the signalling server.
func (c *SignallingConfig) signer() (sign hook.Signer, err error) {
	switch {
	case c.ReconnectURL == "":
		return nil, nil
	case c.Key != "" && c.Secret != "":
		return nil, errors.New("signalling.key and signalling.secret exclude each other")
	case c.Key != "":
		if sign, err = hook.Ed25519([]byte(c.Key)); err != nil {
			return nil, fmt.Errorf("signalling.key: %w", err)
		}
	default:
		if sign, err = hook.HMAC([]byte(c.Secret)); err != nil {
			return nil, fmt.Errorf("signalling.secret: %w", err)
		}
	}
	return sign, nil
}

// sealKey is the configured key. Where none is given the log is a file on this
// machine, which only one process writes, so the key can live beside it.
func (c *Config) sealKey() (seal.Key, error) {
	if c.Seal.Key != "" {
		return seal.ParseKey([]byte(c.Seal.Key))
	}
	path, err := chatlog.Path(c.Log.URL)
	if err != nil {
		return seal.Key{}, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return seal.Key{}, err
	}
	return seal.LoadOrCreate(filepath.Join(filepath.Dir(path), "seal.key"))
}

func listenAll(addresses ...string) (all []net.Listener, err error) {
	for _, addr := range addresses {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close() // closed already when the server ended well
	}
}

type checkConfigCmd struct {
	ConfigPath string `name:"config" placeholder:"FILE" help:"YAML file of settings."`
	Config     `embed:""`
}

// Help is shown under --help.
func (checkConfigCmd) Help() string { return secretsHelp() }

// Run prints the settings that serve would use.
func (c *checkConfigCmd) Run(s streams, file *configFile) error {
	_, err := c.Config.prepare(file)
	err = errors.Join(err, c.checkServe())
	if c.Seal.Key != "" {
		_, keyErr := seal.ParseKey([]byte(c.Seal.Key))
		err = errors.Join(err, keyErr)
	}
	if err != nil {
		return usageError{err}
	}
	out, err := yaml.Marshal(c.Config.effective())
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "# These settings are in order.\n%s", out)
	return nil
}

// effective is every setting by its place, with secrets only said to be set.
func (c *Config) effective() map[string]any {
	all := map[string]any{}
	put := func(key string, v any) {
		section, name, nested := strings.Cut(key, ".")
		if !nested {
			all[key] = v
			return
		}
		if all[section] == nil {
			all[section] = map[string]any{}
		}
		all[section].(map[string]any)[name] = v
	}
	walkSettings(reflect.ValueOf(c).Elem(), "", put)
	for _, s := range c.secrets() {
		word := "not set"
		if *s.value != "" {
			word = "set"
		}
		put(s.key, "("+word+")")
	}
	return all
}

func walkSettings(v reflect.Value, prefix string, put func(key string, v any)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		switch value := v.Field(i); {
		case field.Tag.Get("kong") == "-":
		case field.Type.Kind() == reflect.Struct:
			walkSettings(value, prefix+field.Tag.Get("prefix"), put)
		default:
			put(prefix+settingName(field), plain(value.Interface()))
		}
	}
}

// plain writes durations as people do.
func plain(v any) any {
	if s, ok := v.(fmt.Stringer); ok {
		return s.String()
	}
	return v
}
