package token

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/maypok86/otter/v2"

	"github.com/hanmadi/hanmadi/internal/chat"
)

const (
	// leeway is how far the platform's clock and ours may be apart.
	leeway = 30 * time.Second

	// maxCached tokens are kept for at most maxCachedFor, which is also how
	// long a token's attrs stay in memory after its last use.
	maxCached    = 100_000
	maxCachedFor = 60 * time.Second
)

// rules is what holds from one Reload to the next, and what was found out by it.
// It is set once; its methods may be called concurrently.
type rules struct {
	keys     ring    // secrets and PEM keys, in the order they are tried
	remote   *remote // nil without a JWKS URL; shared with the rules before and after
	names    ClaimNames
	operator Operator
	parser   *jwt.Parser
	users    *jwt.Validator // of times, issuer and audience
	times    *jwt.Validator // of times only, for those whom operator tells
	cache    *otter.Cache[cacheKey, chat.User]
}

// cacheKey is a token's SHA-256, so that a dump of our memory holds no tokens.
type cacheKey [sha256.Size]byte

// check is the part of newRules that can fail.
func (c *Config) check() (keys ring, names ClaimNames, err error) {
	if keys, err = c.keys(); err != nil {
		return nil, names, err
	}
	if err = c.Operator.check(c); err != nil {
		return nil, names, err
	}
	names, err = c.Claims.complete()
	return keys, names, err
}

func newRules(c Config, remote *remote) (*rules, error) {
	r := &rules{remote: remote, operator: c.Operator}
	var err error
	if r.keys, r.names, err = c.check(); err != nil {
		return nil, err
	}
	// The claims are judged in a second step, by the validators: only once the
	// signature holds, and read more strictly than the parser reads them.
	r.parser = jwt.NewParser(jwt.WithStrictDecoding())
	options := []jwt.ParserOption{jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway)}
	r.times = jwt.NewValidator(options...)
	options = append(options, jwt.WithIssuer(c.Issuer)) // "" checks nothing
	if c.Audience != "" {
		options = append(options, jwt.WithAudience(c.Audience))
	}
	r.users = jwt.NewValidator(options...)

	r.cache, err = otter.New(&otter.Options[cacheKey, chat.User]{
		MaximumSize: maxCached,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[cacheKey, chat.User]) time.Duration {
			return min(maxCachedFor, time.Until(e.Value.Expires.Add(leeway)))
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("token: make the cache: %w", err)
	}
	return r, nil
}

// verify is [Verifier.Verify] without the cache.
func (r *rules) verify(raw string) (chat.User, error) {
	t, err := r.parse(raw)
	if err != nil {
		return chat.User{}, invalid(err)
	}
	signer, err := r.signer(t)
	if err != nil {
		return chat.User{}, err
	}
	c := t.claims
	if err := c.decode(); err != nil {
		return chat.User{}, invalid(err)
	}
	role, validator := signer.role, r.users
	if r.operator.issued(c) {
		role, validator = chat.RoleOperator, r.times
	}
	// The library's sentences here name claims and say nothing of their values.
	if err := validator.Validate(c); errors.Is(err, jwt.ErrTokenExpired) {
		return chat.User{}, &chat.Refusal{Code: chat.TokenExpired, Cause: err}
	} else if err != nil {
		return chat.User{}, invalid(err)
	}
	u, err := c.user(r.names)
	if err != nil {
		return chat.User{}, err
	}
	u.Role = role
	return u, nil
}

// Why a token is invalid before its claims are read. The library's own errors
// quote what they stumble over, so they are not passed on.
var (
	errTooLong   = fmt.Errorf("token is longer than %d bytes", maxToken)
	errMalformed = errors.New("token is not three parts of base64url, two of them JSON")
	errKeyID     = errors.New("token's key id (kid) is not a string")
	errMethod    = errors.New("token's algorithm (alg) is not that of a key we have")
	errSignature = errors.New("token's signature does not verify")
	errUnknown   = errors.New("token's key (kid) is not in the key set")
	errCritical  = errors.New("token has critical header parameters (crit)")
)

// unverified is a token whose signature may be anybody's.
type unverified struct {
	alg, kid string
	text     string // what the signature covers
	sig      []byte
	claims   *claims // not yet decoded
}

// parse takes a token apart. Of its header it gives alg and kid: keys and
// addresses of keys (jwk, jku, x5c, x5u) are whatever the sender likes.
func (r *rules) parse(raw string) (unverified, error) {
	// The base64 decoder skips line breaks, even when strict.
	if strings.ContainsAny(raw, "\r\n") {
		return unverified{}, errMalformed
	}
	c := new(claims)
	t, parts, err := r.parser.ParseUnverified(raw, c)
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return unverified{}, errMalformed
	case err != nil:
		return unverified{}, errMethod
	}
	// RFC 7515 section 4.1.11: who does not understand all of them must refuse,
	// and we understand none.
	if _, ok := t.Header["crit"]; ok {
		return unverified{}, errCritical
	}
	kid, ok := t.Header["kid"].(string)
	if !ok && t.Header["kid"] != nil {
		return unverified{}, errKeyID
	}
	return unverified{
		alg: t.Method.Alg(), kid: kid, text: raw[:len(parts[0])+1+len(parts[1])], sig: t.Signature, claims: c,
	}, nil
}

// signer finds the key that signed a token. Its errors are refusals. Our own
// keys come first: they cost no fetch.
func (r *rules) signer(t unverified) (key, error) {
	k, err := r.keys.find(t)
	if err == nil {
		return k, nil
	}
	if r.remote != nil && t.alg != jwt.SigningMethodHS256.Alg() && slices.Contains(algorithms, t.alg) {
		return r.remote.find(t)
	}
	return key{}, invalid(err)
}

// issued reports whether a token with these claims is an operator's. Claims of
// the wrong type are left to the validator of users.
func (o Operator) issued(c *claims) bool {
	if o.Issuer == "" {
		return false
	}
	iss, err := c.GetIssuer()
	if err != nil || iss != o.Issuer {
		return false
	}
	aud, err := c.GetAudience()
	return o.Audience == "" || err == nil && slices.Contains(aud, o.Audience)
}
