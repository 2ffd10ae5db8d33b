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
	"github.com/hanmadi/hanmadi/internal/moderate"
	"github.com/hanmadi/hanmadi/internal/token"
)

// Config is every setting of dev and serve, with its default. The same words
// name a setting everywhere: log.url in the file is HANMADI_LOG_URL in the
// environment and --log.url as a flag. Fields marked kong:"-" are secrets.
type Config struct {
	Listen      string           `default:"127.0.0.1:8080" help:"Address for viewers, presenters and the gateway."`
	AdminListen string           `default:"127.0.0.1:8081" help:"Address for operators: /livez, /readyz, /metrics and operator calls. dev serves them on listen."`
	Log         LogConfig        `embed:"" prefix:"log."`
	Token       TokenConfig      `embed:"" prefix:"token."`
	Gateway     GatewayConfig    `embed:"" prefix:"gateway."`
	Directory   DirectoryConfig  `embed:"" prefix:"directory."`
	Signalling  SignallingConfig `embed:"" prefix:"signalling."`
	Seal        SealConfig       `kong:"-"`
	Link        LinkConfig       `embed:"" prefix:"link."`
	Limits      LimitsConfig     `embed:"" prefix:"limits."`
	Follow      FollowConfig     `embed:"" prefix:"follow."`
	Read        ReadConfig       `embed:"" prefix:"read."`
	CORS        CORSConfig       `embed:"" prefix:"cors."`
	Broadcast   BroadcastConfig  `embed:"" prefix:"broadcast."`
	Original    OriginalConfig   `embed:"" prefix:"original."`
	Drain       DrainConfig      `embed:"" prefix:"drain."`
	Logging     LoggingConfig    `embed:"" prefix:"logging."`
}

// LogConfig is where lines are kept.
type LogConfig struct {
	LogFile
	LogSpace
	Tail   int64 `default:"67108864" help:"Memory for the newest rows of all rooms, in bytes."`
	Search bool  `default:"true" negatable:"" help:"Index lines, so that they can be searched."`
}

// LogFile is which log.
type LogFile struct {
	URL string `default:"sqlite:./data/hanmadi.db" help:"The log: sqlite: and a file."`
}

// LogSpace is what the log leaves of its disk.
type LogSpace struct {
	MinFree int64 `default:"268435456" help:"Bytes that stay free on the log's disk: below, lines are refused until there is space again; 0: not watched."`
}

// TokenConfig is how tokens are verified.
type TokenConfig struct {
	Secret                 string `kong:"-"`
	SecretPrevious         string `kong:"-"`
	OperatorSecret         string `kong:"-"`
	OperatorSecretPrevious string `kong:"-"`

	PublicKeys       string   `placeholder:"FILE" help:"PEM file of public keys that verify tokens (RS256, ES256, EdDSA); read again on SIGHUP, as the secrets' files are."`
	JwksURL          string   `placeholder:"URL" help:"JWK Set whose keys verify tokens."`
	OperatorIssuer   string   `help:"Tokens with this iss speak for the platform itself."`
	OperatorAudience string   `help:"Tokens with this aud speak for the platform itself; with operator_issuer, both must hold."`
	ClaimUser        []string `default:"userIdx,user_idx,sub" help:"Claims that name the user; those that are there must agree, and sub counts only where no other is there."`
	ClaimNickname    string   `default:"nickname" help:"Claim that names the nickname."`
	ClaimAttrs       []string `help:"Claims to make the user's attributes of (badge, colour); none: the claim attrs, an object, is taken as it is."`
	ClaimRole        string   `help:"Claim that lists what the platform says one is, see broadcast.presenters; empty: not read."`
	SecretEncoding   string   `default:"raw" enum:"raw,base64" help:"How the secrets are written: raw or base64."`
	Issuer           string   `help:"Required iss of every token; empty: not looked at."`
	Audience         string   `help:"Required aud of every token; empty: not looked at."`
}

// GatewayConfig is whose identity headers are believed.
type GatewayConfig struct {
	From   []string `placeholder:"CIDR" help:"Networks that the gateway's connections come from; none: identity headers are not looked at."`
	Header string   `default:"X-Gateway-Secret" help:"Header in which the gateway sends gateway.secret."`
	Secret string   `kong:"-"`
}

// DirectoryConfig is the platform's room server.
type DirectoryConfig struct {
	URL     string        `placeholder:"URL" help:"The room server, asked at URL/check who is live; empty: a presenter's link or an operator opens broadcasts."`
	Timeout time.Duration `default:"500ms" help:"How long one question may take."`
}

// SignallingConfig is the platform's signalling server.
type SignallingConfig struct {
	ReconnectURL string `placeholder:"URL" help:"Where to ask for a presenter to connect again."`
	Secret       string `kong:"-"`
	Key          string `kong:"-"`
}

// OriginalConfig is the original platform's own calls.
type OriginalConfig struct {
	Serve    bool   `default:"true" negatable:"" help:"Serve /chatting and /send/message as the original platform's apps expect them."`
	Timezone string `default:"Asia/Seoul" help:"Time zone of the times in them."`
}

// SealConfig is the key that signs frames.
type SealConfig struct {
	Key string
}

// LinkConfig is what holds for presenters' WebSockets.
type LinkConfig struct {
	Origins      []string `help:"Origins of pages that may open a link, such as https://example.com. Without an Origin (programs) it is always open."`
	Max          int      `default:"20000" help:"Links on this node."`
	PerAddress   int      `default:"1000" help:"Links from one address; mobile carriers share them among many."`
	Unstarted    int      `name:"unstarted-per-address" default:"100" help:"Links from one address that have not said yet who they are."`
	OutliveToken bool     `help:"Let a link live on when its token has expired."`
}

// LimitsConfig is how many lines, refusals and connections there may be. The
// fields' names would be split before their numbers.
type LimitsConfig struct {
	User        int `name:"user-per-30s" default:"20" help:"Lines a user may say in 30 s, over all rooms; all of them at once, if they like. Presenters in their room and operators are exempt."`
	Room        int `name:"room-per-s" default:"200" help:"Lines a second in one room."`
	Address     int `name:"address-per-30s" default:"3000" help:"Lines from one address in 30 s; mobile carriers share them among many."`
	Attempts    int `name:"attempts-per-30s" default:"300" help:"Refused requests in 30 s, a third of them at once, after which a user or an address is not listened to."`
	Connections int `name:"connections-per-address" default:"0" help:"Connections from one address, but for the gateway's and this machine's; 0: twice link.per_address."`
}

// rates are the buckets of lines.
func (c *LimitsConfig) rates() moderate.Rates {
	return moderate.Rates{User: moderate.Per(c.User, 30*time.Second), Room: moderate.Per(c.Room, time.Second),
		Address: moderate.Per(c.Address, 30*time.Second)}
}

// attempts is the bucket of refusals.
func (c *LimitsConfig) attempts() moderate.Rate {
	return moderate.Rate{Burst: max(c.Attempts/3, 1), Each: moderate.Per(c.Attempts, 30*time.Second).Each}
}

// FollowConfig is what holds for viewers' streams of events.
type FollowConfig struct {
	Max        int `default:"10000" help:"Followers on this node."`
	PerUser    int `default:"20" help:"Followers of one user."`
	PerAddress int `default:"1000" help:"Followers without a token from one address; mobile carriers share them among many."`
}

// ReadConfig is who may read rooms.
type ReadConfig struct {
	Who     string `default:"everyone" enum:"everyone,users" help:"Who may read rooms: everyone, or users, which is whoever has a valid token."`
	History string `default:"all" enum:"all,broadcast" help:"How far back: all, or the running broadcast only."`
}

// CORSConfig is whose pages may call.
type CORSConfig struct {
	Origins []string `help:"Origins of pages that may call what is about rooms, such as https://example.com; * lets all pages read, without a token."`
}

// BroadcastConfig is how long a presenter may be away.
type BroadcastConfig struct {
	QueueFor time.Duration `default:"30s" help:"How long lines are taken while the presenter has no link."`
	EndAfter time.Duration `default:"90s" help:"When a broadcast without a link ends; with a room server, its word decides."`

	Presenters    string `default:"anyone" enum:"anyone,role" help:"Who may open a link: anyone, or those whose token claims the presenter role."`
	PresenterRole string `default:"presenter" help:"The value of token.claim_role that makes a presenter."`
}

// DrainConfig is how the program stops.
type DrainConfig struct {
	Over time.Duration `default:"20s" help:"Time over which goodbyes to links and followers are spread at a stop."`
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
		{"token.secret_previous", &c.Token.SecretPrevious},
		{"token.operator_secret", &c.Token.OperatorSecret},
		{"token.operator_secret_previous", &c.Token.OperatorSecretPrevious},
		{"gateway.secret", &c.Gateway.Secret},
		{"signalling.secret", &c.Signalling.Secret},
		{"signalling.key", &c.Signalling.Key},
		{"seal.key", &c.Seal.Key},
	}
}

// maxLimit is no limit at all, and far from where times are too short to count.
const maxLimit = 1_000_000_000

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
	for key, origins := range map[string][]string{"link.origins": c.Link.Origins, "cors.origins": c.CORS.Origins} {
		for i, origin := range origins {
			if !isOrigin(origin) && (key != "cors.origins" || origin != "*") {
				wrong(key, "%q is not an origin such as https://example.com", origin)
			}
			origins[i] = strings.ToLower(origin)
		}
	}
	for key, address := range map[string]string{"directory.url": c.Directory.URL, "signalling.reconnect_url": c.Signalling.ReconnectURL} {
		u, err := url.Parse(address)
		if address != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			wrong(key, "%q is not an address such as http://service:8080", address)
		}
	}
	for key, n := range map[string]int64{"log.tail": c.Log.Tail, "link.max": int64(c.Link.Max),
		"follow.max": int64(c.Follow.Max), "follow.per_user": int64(c.Follow.PerUser), "follow.per_address": int64(c.Follow.PerAddress),
		"link.per_address": int64(c.Link.PerAddress), "directory.timeout": int64(c.Directory.Timeout),
		"broadcast.queue_for": int64(c.Broadcast.QueueFor), "broadcast.end_after": int64(c.Broadcast.EndAfter)} {
		if n <= 0 {
			wrong(key, "must be more than 0")
		}
	}
	for key, n := range map[string]int{"limits.user_per_30s": c.Limits.User, "limits.room_per_s": c.Limits.Room,
		"limits.address_per_30s": c.Limits.Address, "limits.attempts_per_30s": c.Limits.Attempts, "link.unstarted_per_address": c.Link.Unstarted} {
		if n < 1 || n > maxLimit {
			wrong(key, "must be 1 to %d", maxLimit)
		}
	}
	if c.Limits.Connections < 0 {
		wrong("limits.connections_per_address", "must not be negative")
	}
	for key, n := range map[string]int64{"drain.over": int64(c.Drain.Over), "log.min_free": c.Log.MinFree} {
		if n < 0 {
			wrong(key, "must not be negative")
		}
	}
	if c.Broadcast.EndAfter < c.Broadcast.QueueFor {
		wrong("broadcast.end_after", "must not be shorter than broadcast.queue_for")
	}
	return errors.Join(errs...)
}

// checkServe says what is wrong for serve and not for dev, which has one address
// and no platform.
func (c *Config) checkServe() error {
	var errs []error
	if _, port, _ := net.SplitHostPort(c.Listen); c.Listen == c.AdminListen && port != "0" {
		errs = append(errs, errors.New("admin_listen: must be another address than listen"))
	}
	if c.Broadcast.Presenters == "role" && c.Token.ClaimRole == "" {
		errs = append(errs, errors.New("broadcast.presenters: role needs token.claim_role, or nobody could open a link"))
	}
	return errors.Join(errs...)
}

func isOrigin(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Scheme != "" && u.Host != "" && u.Path == "" && u.RawQuery == ""
}

// tokens makes the verifier's configuration, decoding the secrets.
func (c *TokenConfig) tokens() (token.Config, error) {
	out := token.Config{
		JWKSURL: c.JwksURL, Issuer: c.Issuer, Audience: c.Audience,
		Operator: token.Operator{Issuer: c.OperatorIssuer, Audience: c.OperatorAudience},
		Claims:   c.claimNames(),
	}
	if c.Secret == "" && c.SecretPrevious == "" && c.PublicKeys == "" && c.JwksURL == "" {
		return out, errors.New("token.secret is missing: set HANMADI_TOKEN_SECRET or HANMADI_TOKEN_SECRET_FILE, or token.secret_file in the file; " +
			"or name the platform's public keys in token.public_keys or token.jwks_url")
	}
	for _, s := range []struct {
		key, text string
		into      *[]byte
	}{
		{"token.secret", c.Secret, &out.Secret}, {"token.secret_previous", c.SecretPrevious, &out.SecretPrevious},
		{"token.operator_secret", c.OperatorSecret, &out.OperatorSecret},
		{"token.operator_secret_previous", c.OperatorSecretPrevious, &out.OperatorSecretPrevious},
	} {
		if s.text == "" {
			continue
		}
		var err error
		if *s.into, err = token.ParseSecret(s.text, c.SecretEncoding); err != nil {
			return out, fmt.Errorf("%s: %w", s.key, err)
		}
	}
	if c.PublicKeys != "" {
		var err error
		if out.PublicKeys, err = readBounded(c.PublicKeys, maxSecretFile); err != nil {
			return out, fmt.Errorf("token.public_keys: %w", err)
		}
	}
	return out, out.Check()
}

func (c *TokenConfig) claimNames() token.ClaimNames {
	return token.ClaimNames{User: c.ClaimUser, Nickname: c.ClaimNickname, Attrs: c.ClaimAttrs, Role: c.ClaimRole}
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
