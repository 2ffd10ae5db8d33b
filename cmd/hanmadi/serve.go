package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/hanmadi/hanmadi/internal/chatlog"
	"github.com/hanmadi/hanmadi/internal/seal"
)

type serveCmd struct {
	ConfigPath string `name:"config" placeholder:"FILE" help:"YAML file of settings."`
	Config     `embed:""`
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
	set := setup{}
	if err := file.secrets(c.Config.secrets()); err != nil {
		return set, err
	}
	errs := []error{c.Config.check()}
	verifier, err := c.Token.tokens()
	errs = append(errs, err)
	set.Config, set.verifier = c.Config, verifier
	if err := errors.Join(errs...); err != nil {
		return set, err
	}
	set.key, err = c.sealKey()
	return set, err
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

// Run prints the settings that serve would use.
func (c *checkConfigCmd) Run(s streams, file *configFile) error {
	if err := file.secrets(c.Config.secrets()); err != nil {
		return usageError{err}
	}
	_, err := c.Token.tokens()
	if c.Seal.Key != "" {
		_, keyErr := seal.ParseKey([]byte(c.Seal.Key))
		err = errors.Join(err, keyErr)
	}
	if err := errors.Join(c.Config.check(), err); err != nil {
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
			put(prefix+snake(field.Name), plain(value.Interface()))
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
