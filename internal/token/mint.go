package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Claims is what [Mint] writes into a token.
type Claims struct {
	UserID           string          // see [chat.ValidID]; becomes sub
	Nickname         string          // "": the user's id will be shown
	Attrs            json.RawMessage // a JSON object of at most [chat.MaxAttrs] bytes, or nil
	Issuer, Audience string          // left out where empty
	Expires          time.Time       // cut to the second; required
}

// Mint makes a token that a [Verifier] with the same secret takes for that
// user, or for an operator if the secret is the operator's. It is for the
// command line and for tests: on a platform, its own services make the tokens.
// Claims that Verify would refuse, whatever the time, are an error here.
func Mint(secret []byte, c Claims) (string, error) {
	if err := checkSecret(secret); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	var payload bytes.Buffer
	// jwt.Token.SignedString would escape <, > and & in attrs, which changes
	// their bytes and may push them over their bound.
	e := json.NewEncoder(&payload)
	e.SetEscapeHTML(false)
	if err := e.Encode(struct {
		Subject  string          `json:"sub"`
		Nickname string          `json:"nickname,omitempty"`
		Attrs    json.RawMessage `json:"attrs,omitempty"`
		Issuer   string          `json:"iss,omitempty"`
		Audience string          `json:"aud,omitempty"`
		Expires  int64           `json:"exp"`
	}{c.UserID, c.Nickname, c.Attrs, c.Issuer, c.Audience, c.Expires.Unix()}); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	own := claims{raw: payload.Bytes()}
	if err := own.decode(); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	if _, err := own.user(); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		b64.EncodeToString(bytes.TrimSpace(payload.Bytes()))
	sig, err := jwt.SigningMethodHS256.Sign(signed, secret)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	raw := signed + "." + b64.EncodeToString(sig)
	if len(raw) > maxToken {
		return "", fmt.Errorf("token: %w", errTooLong)
	}
	return raw, nil
}
