// Package token says who is asking: a JSON Web Token (RFC 7519) comes in, a
// [chat.User] goes out.
//
// Tokens are signed by the platform with a secret that it shares with us
// (HS256). No claim is read before the signature verifies, and no claim can
// make its bearer more than a user: only tokens signed with the operator's own
// secret speak for the platform.
//
// Every error of [Verifier.Verify] and [FromHeaders] is a *[chat.Refusal]. Its
// cause tells our log what was wrong, and never contains the token or what its
// claims say.
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
	// maxToken bounds the work that a stranger can ask for, in bytes. A user
	// with attrs of [chat.MaxAttrs] and a long nickname needs half of it.
	maxToken = 4 << 10

	// leeway is how far the platform's clock and ours may be apart.
	leeway = 30 * time.Second

	// maxCached tokens are kept for at most maxCachedFor, which is also how
	// long a token's attrs stay in memory after its last use.
	maxCached    = 100_000
	maxCachedFor = 60 * time.Second
)

// Config is what a [Verifier] accepts.
type Config struct {
	// Secret verifies users' tokens: at least 32 bytes, see [ParseSecret].
	// Setting token.secret.
	Secret []byte

	// OperatorSecret, if any, verifies the platform's own tokens: at least 32
	// bytes, and another key than Secret. Setting token.operator_secret.
	OperatorSecret []byte

	// Issuer and Audience, where not empty, must be the token's iss and stand
	// in its aud. They hold for operators' tokens too.
	Issuer, Audience string
}

// Verifier tells users by their tokens. Make one with [New] and end it with
// [Verifier.Close]. Its methods may be called concurrently.
type Verifier struct {
	signers   []signer // in the order they are tried
	parser    *jwt.Parser
	validator *jwt.Validator
	cache     *otter.Cache[cacheKey, chat.User]
}

// signer is a secret and what its tokens make of their bearers.
type signer struct {
	secret []byte
	role   chat.Role
}

// cacheKey is a token's SHA-256, so that a dump of our memory holds no tokens.
type cacheKey [sha256.Size]byte

// New makes a verifier. Its errors name the setting at fault and contain no
// secret.
func New(c Config) (*Verifier, error) {
	if err := checkSecret(c.Secret); err != nil {
		return nil, fmt.Errorf("token.secret: %w", err)
	}
	v := &Verifier{signers: []signer{{secret: slices.Clone(c.Secret)}}}
	if len(c.OperatorSecret) > 0 {
		if err := checkSecret(c.OperatorSecret); err != nil {
			return nil, fmt.Errorf("token.operator_secret: %w", err)
		}
		if sameKey(c.Secret, c.OperatorSecret) {
			return nil, errors.New("token.operator_secret: the same key as token.secret, which would make every user an operator")
		}
		v.signers = append(v.signers, signer{slices.Clone(c.OperatorSecret), chat.RoleOperator})
	}
	// The claims are judged in a second step, by the validator: only once the
	// signature holds, and read more strictly than the parser reads them.
	v.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithStrictDecoding(),
		jwt.WithoutClaimsValidation(),
	)
	rules := []jwt.ParserOption{
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway),
		jwt.WithIssuer(c.Issuer), // "" checks nothing
	}
	if c.Audience != "" {
		rules = append(rules, jwt.WithAudience(c.Audience))
	}
	v.validator = jwt.NewValidator(rules...)

	var err error
	v.cache, err = otter.New(&otter.Options[cacheKey, chat.User]{
		MaximumSize: maxCached,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[cacheKey, chat.User]) time.Duration {
			return min(maxCachedFor, time.Until(e.Value.Expires.Add(leeway)))
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("token: make the cache: %w", err)
	}
	return v, nil
}

// Close stops the cache's goroutine and waits for it. It may be called more
// than once; Verify works on after it, and forgets less promptly.
func (v *Verifier) Close() { v.cache.StopAllGoroutines() }

// Verify returns the user whom a token stands for. It is refused as
//   - token.missing: raw is empty;
//   - token.expired: its exp is 30 s or more ago, and its signature is right;
//   - token.mismatch: its claims userIdx and user_idx name different users;
//   - token.invalid: everything else, such as a token over 4 KiB, a signature
//     or algorithm (alg) other than HS256's, header parameters that must be
//     understood (crit), an exp that is missing or beyond the year 9999, an nbf
//     or iat more than 30 s ahead, another iss or aud, a payload that
//     [wire.Decode] refuses, claims of the wrong type, attrs over
//     [chat.MaxAttrs].
//
// The user's id is userIdx or user_idx, else sub: a string, or a number of 1 to
// 19 digits, taken as its text; it must be a [chat.ValidID]. Names of claims
// are matched exactly. A claim that is null counts as absent.
//
// A token that verified is remembered for up to 60 s, never past its end; a
// refused one is looked at anew every time. The user's Attrs are shared by all
// who ask with the same token and must not be written to.
func (v *Verifier) Verify(raw string) (chat.User, error) {
	if raw == "" {
		return chat.User{}, chat.Refuse(chat.TokenMissing)
	}
	if len(raw) > maxToken {
		return chat.User{}, invalid(errTooLong)
	}
	key := cacheKey(sha256.Sum256([]byte(raw)))
	if u, ok := v.cache.GetIfPresent(key); ok {
		// The cache counts elapsed time; a clock that was set forward since
		// ends tokens sooner.
		if !time.Now().Before(u.Expires.Add(leeway)) {
			return chat.User{}, &chat.Refusal{Code: chat.TokenExpired, Cause: jwt.ErrTokenExpired}
		}
		return u, nil
	}
	u, err := v.verify(raw)
	if err != nil {
		return chat.User{}, err
	}
	v.cache.Set(key, u)
	return u, nil
}

// verify is Verify without the cache.
func (v *Verifier) verify(raw string) (chat.User, error) {
	c, role, err := v.open(raw)
	if err != nil {
		return chat.User{}, invalid(err)
	}
	if err := c.decode(); err != nil {
		return chat.User{}, invalid(err)
	}
	// The library's sentences here name claims and say nothing of their values.
	if err := v.validator.Validate(c); errors.Is(err, jwt.ErrTokenExpired) {
		return chat.User{}, &chat.Refusal{Code: chat.TokenExpired, Cause: err}
	} else if err != nil {
		return chat.User{}, invalid(err)
	}
	u, err := c.user()
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
	errMethod    = errors.New("token is not signed with HS256")
	errSignature = errors.New("token's signature does not verify")
	errCritical  = errors.New("token has critical header parameters (crit)")
)

// open verifies the signature and gives the claims, not yet decoded, and the
// role that the secret stands for. The users' secret is tried first, because
// nearly all tokens are theirs; there is no kid to go by, as the platform's
// libraries do not set one.
func (v *Verifier) open(raw string) (*claims, chat.Role, error) {
	// The base64 decoder skips line breaks, even when strict.
	if strings.ContainsAny(raw, "\r\n") {
		return nil, "", errMalformed
	}
	for _, s := range v.signers {
		c := new(claims)
		t, err := v.parser.ParseWithClaims(raw, c, func(*jwt.Token) (any, error) { return s.secret, nil })
		switch {
		case err == nil:
			// RFC 7515 section 4.1.11: who does not understand all of them
			// must refuse, and we understand none.
			if _, ok := t.Header["crit"]; ok {
				return nil, "", errCritical
			}
			return c, s.role, nil
		case errors.Is(err, jwt.ErrTokenMalformed):
			return nil, "", errMalformed
		case !errors.Is(err, jwt.ErrTokenSignatureInvalid), t.Method != jwt.SigningMethodHS256:
			return nil, "", errMethod
		}
	}
	return nil, "", errSignature
}

func invalid(cause error) error {
	return &chat.Refusal{Code: chat.TokenInvalid, Cause: cause}
}
