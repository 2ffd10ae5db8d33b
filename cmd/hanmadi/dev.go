package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hanmadi/hanmadi/internal/chatlog"
	"github.com/hanmadi/hanmadi/internal/token"
)

type devCmd struct {
	ConfigPath string `name:"config" placeholder:"FILE" help:"YAML file of settings."`
	Presenter  string `default:"7" help:"User id of the presenter that a token is printed for."`
	Viewer     string `default:"42" help:"User id of the viewer that a token is printed for."`
	Config     `embed:""`
}

// devTokens is how long the printed tokens hold.
const devTokens = 7 * 24 * time.Hour

// Help is shown under --help.
func (devCmd) Help() string {
	return "Makes the secrets of tokens and the key of frames that are not given, and keeps them beside the log. " + secretsHelp()
}

// Run serves this machine until a signal.
func (c *devCmd) Run(s streams, file *configFile, signals <-chan os.Signal) error {
	set, err := c.setup(file)
	if err != nil {
		return usageError{err}
	}
	listeners, err := listenLoopback(c.Listen)
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	set.one = true
	set.hosts, set.Link.Origins = ownNames(listeners[0].Addr())
	set.Drain.Over = 0 // nobody stampedes on a laptop
	hello, err := c.hello(set, listeners[0].Addr().String())
	if err != nil {
		return err
	}
	logging := c.Logging
	logging.Format = "text"
	return serve(set, listeners, logging.logger(s), signals, func() { fmt.Fprint(s.out, hello) })
}

func (c *devCmd) setup(file *configFile) (setup, error) {
	if err := file.secrets(c.Config.secrets()); err != nil {
		return setup{}, err
	}
	if err := c.ownSecrets(); err != nil {
		return setup{}, err
	}
	set, err := c.Config.prepare(file)
	if err != nil {
		return set, err
	}
	set.key, err = c.sealKey()
	return set, err
}

// ownSecrets makes the secrets that are not configured and keeps them beside
// the log, so that tokens hold across restarts.
func (c *devCmd) ownSecrets() error {
	path, err := chatlog.Path(c.Log.URL)
	if err != nil {
		return err
	}
	for name, into := range map[string]*string{"token.secret": &c.Token.Secret, "operator.secret": &c.Token.OperatorSecret} {
		if *into != "" {
			continue
		}
		if *into, err = ownSecret(filepath.Join(filepath.Dir(path), name)); err != nil {
			return err
		}
	}
	return nil
}

// ownSecret reads a secret, or makes a random one of 256 bits, mode 0600. It is
// written in Base64 but is itself the raw secret, whatever the encoding.
func ownSecret(path string) (string, error) {
	if data, err := readBounded(path, maxSecretFile); err == nil {
		return strings.TrimSpace(string(data)), nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	raw := make([]byte, 32)
	rand.Read(raw)
	text := base64.StdEncoding.EncodeToString(raw)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return ownSecret(path) // another process was first
	}
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintln(f, text)
	return text, errors.Join(err, f.Sync(), f.Close())
}

// listenLoopback refuses every address that another machine could reach: dev
// prints tokens and has no gateway in front.
func listenLoopback(addr string) ([]net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usageError{fmt.Errorf("listen: %w", err)}
	}
	ips, err := net.DefaultResolver.LookupIPAddr(context.Background(), host)
	if host == "" || err != nil {
		return nil, usageError{fmt.Errorf("listen: dev serves this machine only, not %q: use 127.0.0.1 or [::1]", addr)}
	}
	for _, ip := range ips {
		if !ip.IP.IsLoopback() {
			return nil, usageError{fmt.Errorf("listen: dev serves this machine only, and %s is not a loopback address: use serve for others", ip.IP)}
		}
	}
	return listenAll(addr)
}

// ownNames are the Host headers and Origins that name a loopback listener. A
// page of another site that had its name pointed here (DNS rebinding) sends
// that name, and is refused.
func ownNames(addr net.Addr) (hosts, origins []string) {
	_, port, _ := net.SplitHostPort(addr.String())
	for _, name := range []string{"127.0.0.1", "localhost", "::1"} {
		host := net.JoinHostPort(name, port)
		hosts = append(hosts, host)
		origins = append(origins, "http://"+host)
		if port == "80" {
			hosts = append(hosts, name)
			origins = append(origins, "http://"+name)
		}
	}
	return hosts, origins
}

// hello is what dev prints: what is served, who one can be, and lines to copy.
func (c *devCmd) hello(set setup, addr string) (string, error) {
	mint := func(user, nickname string) (string, error) {
		return token.Mint(set.verifier.Secret, token.Claims{UserID: user, Nickname: nickname, Expires: time.Now().Add(devTokens),
			Issuer: c.Token.Issuer, Audience: c.Token.Audience, Names: c.Token.claimNames()})
	}
	presenter, err := mint(c.Presenter, "방송자")
	if err != nil {
		return "", err
	}
	viewer, err := mint(c.Viewer, "시청자")
	if err != nil {
		return "", err
	}
	path, _ := chatlog.Path(c.Log.URL)
	return fmt.Sprintf(`Hanmadi serves http://%[1]s on this machine only. The log is %[2]s.

Presenter %[3]s, token for 7 days:
%[5]s

Viewer %[4]s, token for 7 days:
%[6]s

To see a line's path, open the presenter's link in a second terminal:
  HANMADI_URL=http://%[1]s HANMADI_TOKEN=%[5]s go run ./cmd/hanmadi listen

and say something in a third:
  curl -sS http://%[1]s/v1/rooms/%[3]s/messages -H 'Authorization: Bearer %[6]s' -H 'Content-Type: application/json' -d '{"text":"안녕하세요"}'

What was said:
  curl -sS http://%[1]s/v1/rooms/%[3]s/events

Ctrl-C stops.
`, addr, path, c.Presenter, c.Viewer, presenter, viewer), nil
}
