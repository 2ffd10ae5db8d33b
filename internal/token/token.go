// Package token says who is asking: a JSON Web Token (RFC 7519) comes in, a
// [chat.User] goes out.
//
// Tokens are signed by the platform: with a secret that it shares with us
// (HS256), or with a private key (RS256, ES256, EdDSA) whose public half stands
// in the settings or in a key set that we fetch. A key serves one algorithm,
// whatever a token says, and nothing that a token brings along is a key. No
// claim is read before the signature verifies, and no claim of a role makes its
// bearer more than a user: only tokens signed with the operator's own secret,
// or of the issuer that the settings name for operators, speak for the platform.
//
// Every error of [Verifier.Verify] and [FromHeaders] is a *[chat.Refusal]. Its
// cause tells our log what was wrong, and never contains the token or what its
// claims say.
package token

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// maxToken bounds the work that a stranger can ask for, in bytes. A user with
// attrs of [chat.MaxAttrs], a long nickname and RSA's signature, the longest in
// use, needs two thirds of it.
const maxToken = 4 << 10

// Verifier tells users by their tokens. Make one with [New] and end it with
// [Verifier.Close]. Its methods may be called concurrently.
type Verifier struct {
	rules  atomic.Pointer[rules]
	remote *remote // the key set behind Config.JWKSURL, nil without one; set once

	mu      sync.Mutex // one Reload at a time
	jwksURL string     // set once
	closed  bool       // guarded by mu
}

// New makes a verifier. Its errors name the setting at fault and contain no
// secret. It does not wait for the key set behind [Config].JWKSURL, whose first
// fetch it starts: a program must not depend on another to start.
func New(c Config) (*Verifier, error) {
	v := &Verifier{jwksURL: c.JWKSURL}
	if c.JWKSURL != "" {
		var err error
		if v.remote, err = newRemote(c.JWKSURL, c.HTTP, c.OnFetch); err != nil {
			return nil, fmt.Errorf("token.jwks_url: %w", err)
		}
	}
	r, err := newRules(c, v.remote)
	if err != nil {
		return nil, err
	}
	v.rules.Store(r)
	if v.remote != nil {
		v.remote.start()
	}
	return v, nil
}

// Reload makes the verifier go by c from now on: all of it, or, after an error,
// none of it. What was remembered of tokens is forgotten, so that those of a key
// that is gone, or that new rules forbid, are refused as soon as Reload returns;
// a Verify that began before may still answer by the old rules.
//
// JWKSURL must be as it was, and HTTP and OnFetch are not looked at: the key set
// renews itself. Errors are those of [New], one for a JWKSURL that changed, and
// one after Close.
func (v *Verifier) Reload(c Config) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return errors.New("token: reload of a closed verifier")
	}
	if c.JWKSURL != v.jwksURL {
		return errors.New("token.jwks_url: cannot change while the program runs; start it anew")
	}
	next, err := newRules(c, v.remote)
	if err != nil {
		return err
	}
	v.rules.Swap(next).cache.StopAllGoroutines()
	return nil
}

// Close stops the verifier's goroutines, those of a running fetch included, and
// waits for them. It may be called more than once; Verify works on after it,
// forgets less promptly, and fetches no keys.
func (v *Verifier) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	v.rules.Load().cache.StopAllGoroutines()
	if v.remote != nil {
		v.remote.close()
	}
}

// Verify returns the user whom a token stands for. It is refused as
//   - token.missing: raw is empty;
//   - token.expired: its exp is 30 s or more ago, and its signature is right;
//   - token.mismatch: its claims name different users, see [ClaimNames];
//   - overloaded: its key may stand in the key set behind [Config].JWKSURL, of
//     which no fetch has succeeded yet;
//   - token.invalid: everything else, such as a token over 4 KiB, a signature
//     by none of the keys, an algorithm (alg) that is not its key's, header
//     parameters that must be understood (crit), an exp that is missing or
//     beyond the year 9999, an nbf or iat more than 30 s ahead, another iss or
//     aud, a payload that [wire.Decode] refuses, claims of the wrong type, attrs
//     over [chat.MaxAttrs].
//
// The user's id is a string, or a number of 1 to 19 digits, taken as its text;
// it must be a [chat.ValidID]. Names of claims are matched exactly. A claim that
// is null counts as absent.
//
// A token's kid picks the key in the key set. A kid that is not there makes
// Verify wait up to 3 s for a fetch, of which there is one in 10 s over all
// callers. A token without kid is tried with every key of its algorithm, and so
// is one of a secret or a PEM key, which have no kid.
//
// A token that verified is remembered for up to 60 s, never past its end; a
// refused one is looked at anew every time. The user's Attrs and Claimed are
// shared by all who ask with the same token and must not be written to.
func (v *Verifier) Verify(raw string) (chat.User, error) {
	if raw == "" {
		return chat.User{}, chat.Refuse(chat.TokenMissing)
	}
	if len(raw) > maxToken {
		return chat.User{}, invalid(errTooLong)
	}
	// What is found out by these rules goes into their own cache, so that it
	// does not outlive them.
	r := v.rules.Load()
	key := cacheKey(sha256.Sum256([]byte(raw)))
	if u, ok := r.cache.GetIfPresent(key); ok {
		// The cache counts elapsed time; a clock that was set forward since
		// ends tokens sooner.
		if !time.Now().Before(u.Expires.Add(leeway)) {
			return chat.User{}, &chat.Refusal{Code: chat.TokenExpired, Cause: jwt.ErrTokenExpired}
		}
		return u, nil
	}
	u, err := r.verify(raw)
	if err != nil {
		return chat.User{}, err
	}
	r.cache.Set(key, u)
	return u, nil
}

func invalid(cause error) error {
	return &chat.Refusal{Code: chat.TokenInvalid, Cause: cause}
}
