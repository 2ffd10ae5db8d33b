package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/hanmadi/hanmadi/internal/chatlog"
	"github.com/hanmadi/hanmadi/internal/token"
)

// Config is every setting of dev and serve, with its default. The same words
// name a setting everywhere: log.url in the file is HANMADI_LOG_URL in the
// environment and --log.url as a flag. Fields marked kong:"-" are secrets.
type Config struct {
	Listen      string          `default:"127.0.0.1:8080" help:"Address for viewers, presenters and the gateway."`
	AdminListen string          `default:"127.0.0.1:8081" help:"Address for operators: /livez, /readyz, /metrics and operator calls. dev serves them on listen."`
	Log         LogConfig       `embed:"" prefix:"log."`
	Token       TokenConfig     `embed:"" prefix:"token."`
	Seal        SealConfig      `kong:"-"`
	Link        LinkConfig      `embed:"" prefix:"link."`
	Broadcast   BroadcastConfig `embed:"" prefix:"broadcast."`
	Drain       DrainConfig     `embed:"" prefix:"drain."`
	Logging     LoggingConfig   `embed:"" prefix:"logging."`
}

// LogConfig is where lines are kept.
type LogConfig struct {
	URL  string `default:"sqlite:./data/hanmadi.db" help:"The log: sqlite: and a file."`
	Tail int64  `default:"67108864" help:"Memory for the newest rows of all rooms, in bytes."`
}

// TokenConfig is how tokens are verified.
type TokenConfig struct {
	Secret         string `kong:"-"`
	OperatorSecret string `kong:"-"`
	SecretEncoding string `default:"raw" enum:"raw,base64" help:"How the secrets are written: raw or base64."`
	Issuer         string `help:"Required iss of every token; empty: not looked at."`
	Audience       string `help:"Required aud of every token; empty: not looked at."`
}

// SealConfig is the key that signs frames.
type SealConfig struct {
	Key string
}

// LinkConfig is what holds for presenters' WebSockets.
type LinkConfig struct {
	Origins      []string `help:"Origins of pages that may open a link, such as https://example.com. Without an Origin (programs) it is always open."`
	Max          int      `default:"20000" help:"Links on this node."`
	OutliveToken bool     `help:"Let a link live on when its token has expired."`
}

// BroadcastConfig is how long a presenter may be away.
type BroadcastConfig struct {
	QueueFor time.Duration `default:"30s" help:"How long lines are taken while the presenter has no link."`
	EndAfter time.Duration `default:"90s" help:"When a broadcast without a link ends."`
}

// DrainConfig is how the program stops.
type DrainConfig struct {
	Over time.Duration `default:"20s" help:"Time over which goodbyes to the links are spread at a stop."`
}

// LoggingConfig is the program's own log.
type LoggingConfig struct {
	Level  string `default:"info" enum:"debug,info,warn,error" help:"Least level that is written: debug, info, warn, error."`
	Format string `default:"json" enum:"json,text" help:"json or text, to standard error."`
}

// secrets lists the settings that have no flag, each with its place.
func (c *Config) secrets() []secret {
	return []secret{
		{"token.secret", &c.Token.Secret},
		{"token.operator_secret", &c.Token.OperatorSecret},
		{"seal.key", &c.Seal.Key},
	}
}

// check says everything that is wrong with the values, at once.
func (c *Config) check() error {
	var errs []error
	wrong := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{key}, args...)...))
	}
	for key, addr := range map[string]string{"listen": c.Listen, "admin_listen": c.AdminListen} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			wrong(key, "%q is not host:port", addr)
		}
	}
	if _, err := chatlog.Path(c.Log.URL); err != nil {
		errs = append(errs, err)
	}
	for i, origin := range c.Link.Origins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" {
			wrong("link.origins", "%q is not an origin such as https://example.com", origin)
		}
		c.Link.Origins[i] = strings.ToLower(origin)
	}
	for key, n := range map[string]int64{"log.tail": c.Log.Tail, "link.max": int64(c.Link.Max),
		"broadcast.queue_for": int64(c.Broadcast.QueueFor), "broadcast.end_after": int64(c.Broadcast.EndAfter)} {
		if n <= 0 {
			wrong(key, "must be more than 0")
		}
	}
	if c.Drain.Over < 0 {
		wrong("drain.over", "must not be negative")
	}
	if c.Broadcast.EndAfter < c.Broadcast.QueueFor {
		wrong("broadcast.end_after", "must not be shorter than broadcast.queue_for")
	}
	return errors.Join(errs...)
}

// tokens makes the verifier's configuration, decoding the secrets.
func (c *TokenConfig) tokens() (token.Config, error) {
	out := token.Config{Issuer: c.Issuer, Audience: c.Audience}
	if c.Secret == "" {
		return out, errors.New("token.secret is missing: set HANMADI_TOKEN_SECRET or HANMADI_TOKEN_SECRET_FILE, or token.secret_file in the file")
	}
	var err error
	if out.Secret, err = token.ParseSecret(c.Secret, c.SecretEncoding); err != nil {
		return out, fmt.Errorf("token.secret: %w", err)
	}
	if c.OperatorSecret != "" {
		if out.OperatorSecret, err = token.ParseSecret(c.OperatorSecret, c.SecretEncoding); err != nil {
			return out, fmt.Errorf("token.operator_secret: %w", err)
		}
	}
	return out, nil
}

func (c *LoggingConfig) logger(s streams) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(s.err, opts))
	}
	return slog.New(slog.NewJSONHandler(s.err, opts))
}
