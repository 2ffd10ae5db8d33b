package token

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Config is what a [Verifier] accepts. Of the users' keys (Secret,
// SecretPrevious, PublicKeys, JWKSURL) there must be one at least; an algorithm
// that no key is there for is refused.
type Config struct {
	// Secret verifies users' tokens (HS256): at least 32 bytes, see
	// [ParseSecret]. SecretPrevious does so too, for the time of a rotation.
	// Settings token.secret and token.secret_previous.
	Secret, SecretPrevious []byte

	// OperatorSecret, if any, verifies the platform's own tokens: at least 32
	// bytes, and another key than those for users. OperatorSecretPrevious does
	// so too, for the time of a rotation. Settings token.operator_secret and
	// token.operator_secret_previous.
	OperatorSecret, OperatorSecretPrevious []byte

	// PublicKeys verify tokens: PEM blocks PUBLIC KEY, RSA PUBLIC KEY or
	// CERTIFICATE, 16 at most, each with a key of RSA (2048 to 8192 bits, for
	// RS256), on P-256 (ES256), or of Ed25519 (EdDSA). Of a certificate only the
	// key counts, not its dates or issuer. Setting token.public_keys.
	PublicKeys []byte

	// JWKSURL, if any, is where the platform publishes the keys of its tokens,
	// a JWK set (RFC 7517): https, or http on this machine. It is fetched at
	// once, about every 10 minutes, and when a token names a key that is not in
	// the set. While it fails, the last set stays in use. Setting token.jwks_url.
	JWKSURL string

	// HTTP, if any, fetches the set, but for its CheckRedirect, which is ours.
	HTTP *http.Client

	// OnFetch, if any, is told how each fetch ended, nil for well. It runs
	// before those who wait for the fetch go on, one call at a time; it must
	// return soon and not call the verifier.
	OnFetch func(error)

	// Issuer and Audience, where not empty, must be the token's iss and stand
	// in its aud. They hold for operators' tokens too, except for those that
	// Operator tells. Settings token.issuer and token.audience.
	Issuer, Audience string

	// Operator tells the platform's own tokens where they have no secret of
	// their own.
	Operator Operator

	// Claims says in which claims a token carries what.
	Claims ClaimNames
}

// Check returns the error that [New] would, without starting anything.
func (c Config) Check() error {
	if c.JWKSURL != "" {
		if u, err := url.Parse(c.JWKSURL); err != nil || checkURL(u) != nil {
			return fmt.Errorf("token.jwks_url: %w", errURL)
		}
	}
	_, _, err := c.check()
	return err
}

// Operator tells operators' tokens by who issued them: a token that any of the
// keys verifies is an operator's if its iss is Issuer and, where Audience is not
// empty, Audience stands in its aud. With an empty Issuer nobody is. Both are up
// to whoever holds the private key, unlike a role, which platforms let their
// users' profiles decide. Settings token.operator_issuer and
// token.operator_audience.
type Operator struct{ Issuer, Audience string }

// secret is one of the settings that hold a secret.
type secret struct {
	setting string
	value   []byte
	role    chat.Role
}

// keys gathers the secrets and the PEM keys. A JWKS URL is a key in waiting.
func (c *Config) keys() (ring, error) {
	// Those of users come first, because nearly all tokens are theirs.
	var secrets []secret
	for _, s := range []secret{
		{"token.secret", c.Secret, ""},
		{"token.secret_previous", c.SecretPrevious, ""},
		{"token.operator_secret", c.OperatorSecret, chat.RoleOperator},
		{"token.operator_secret_previous", c.OperatorSecretPrevious, chat.RoleOperator},
	} {
		if len(s.value) == 0 {
			continue
		}
		if err := checkSecret(s.value); err != nil {
			return nil, fmt.Errorf("%s: %w", s.setting, err)
		}
		for _, other := range secrets {
			if other.role != s.role && sameKey(other.value, s.value) {
				return nil, fmt.Errorf("%s: the same key as %s, which would make every user an operator", s.setting, other.setting)
			}
		}
		secrets = append(secrets, s)
	}
	if len(c.Secret)+len(c.SecretPrevious)+len(c.PublicKeys)+len(c.JWKSURL) == 0 {
		return nil, errors.New("token.secret, token.public_keys and token.jwks_url are all empty: no user's token could be verified")
	}
	var keys ring
	for _, s := range secrets {
		keys = append(keys, key{method: jwt.SigningMethodHS256, material: slices.Clone(s.value), role: s.role})
	}
	public, err := parsePEM(c.PublicKeys)
	if err != nil {
		return nil, fmt.Errorf("token.public_keys: %w", err)
	}
	return append(keys, public...), nil
}

// check refuses an Operator that would fit the tokens of users.
func (o Operator) check(c *Config) error {
	switch {
	case o.Issuer == "" && o.Audience != "":
		return errors.New("token.operator_audience: useless without token.operator_issuer")
	case o.Issuer != "" && o.Issuer == c.Issuer && (o.Audience == "" || o.Audience == c.Audience):
		return errors.New("token.operator_issuer: the same as token.issuer, and token.operator_audience does not tell operators from users, " +
			"which would make every user an operator")
	}
	return nil
}

// ClaimNames says in which claims a token carries what. Only members of the
// payload itself can be named, not those of objects in it. A name has 1 to 128
// bytes, no quotes, backslashes or control characters, and stands in its list
// once; a list has at most 16.
type ClaimNames struct {
	// User lists the claims that may name the user; none stands for userIdx,
	// user_idx, sub. All that a token has of them must name the same user,
	// except sub, which is only read where none of the others is there: beside
	// the platform's own claims it may be anything, such as an address. Setting
	// token.claim_user.
	User []string

	// Nickname is the claim that is shown as the user's name; "" stands for
	// nickname. Setting token.claim_nickname.
	Nickname string

	// Attrs lists the claims that the user's attrs are made of, in this order:
	// strings, numbers and booleans. Where there are none, the claim attrs, an
	// object, is taken as it is. Setting token.claim_attrs.
	Attrs []string

	// Role is the claim that becomes [chat.User].Claimed: a string, or an array
	// of at most 16 strings, of at most 64 bytes each. With "" no claim does.
	// Setting token.claim_role.
	Role string
}

// Bounds of ClaimNames.
const (
	maxNames     = 16
	maxNameBytes = 128
)

// complete checks the names and puts the defaults in; what it returns shares no
// memory with n.
func (n ClaimNames) complete() (ClaimNames, error) {
	n.User, n.Attrs = slices.Clone(n.User), slices.Clone(n.Attrs)
	if len(n.User) == 0 {
		n.User = []string{"userIdx", "user_idx", "sub"}
	}
	if n.Nickname == "" {
		n.Nickname = "nickname"
	}
	var role []string
	if n.Role != "" {
		role = []string{n.Role}
	}
	for _, list := range []struct {
		setting string
		names   []string
	}{{"user", n.User}, {"nickname", []string{n.Nickname}}, {"attrs", n.Attrs}, {"role", role}} {
		if err := checkNames(list.names); err != nil {
			return n, fmt.Errorf("token.claim_%s: %w", list.setting, err)
		}
	}
	return n, nil
}

func checkNames(names []string) error {
	if len(names) > maxNames {
		return fmt.Errorf("%d names; %d at most", len(names), maxNames)
	}
	for i, name := range names {
		switch {
		case name == "" || len(name) > maxNameBytes || strings.ContainsFunc(name, unquotable):
			return fmt.Errorf("%.140q is not a name of 1 to %d bytes without quotes, backslashes and control characters", name, maxNameBytes)
		case slices.Contains(names[:i], name):
			return fmt.Errorf("%q stands there twice", name)
		}
	}
	return nil
}

// unquotable reports whether a character cannot stand in a JSON string as it is.
func unquotable(r rune) bool {
	return r < ' ' || r == '"' || r == '\\' || r == 0x7f || r == '\ufffd' // which is also what invalid UTF-8 reads as
}
