package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Claims is what [Mint] writes into a token.
type Claims struct {
	UserID           string          // see [chat.ValidID]
	Nickname         string          // "": the user's id will be shown
	Attrs            json.RawMessage // a JSON object of at most [chat.MaxAttrs] bytes, or nil
	Issuer, Audience string          // left out where empty
	Expires          time.Time       // cut to the second; required

	// Names are those of the verifier's Config. The id becomes sub, or the first
	// name of User where sub is not one of them.
	Names ClaimNames
}

// Mint makes a token that a [Verifier] with the same secret and names takes for
// that user, or for an operator if the secret is the operator's. It is for the
// command line and for tests: on a platform, its own services make the tokens.
// Claims that Verify would refuse, whatever the time, are an error here, and so
// are attrs for which Names has no claim.
func Mint(secret []byte, c Claims) (string, error) {
	raw, err := mint(secret, c)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return raw, nil
}

func mint(secret []byte, c Claims) (string, error) {
	if err := checkSecret(secret); err != nil {
		return "", err
	}
	names, err := c.Names.complete()
	if err != nil {
		return "", err
	}
	payload, err := c.payload(names)
	if err != nil {
		return "", err
	}
	own := claims{raw: payload}
	if err := own.decode(); err != nil {
		return "", err
	}
	if _, err := own.user(names); err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + b64.EncodeToString(payload)
	sig, err := jwt.SigningMethodHS256.Sign(signed, secret)
	if err != nil {
		return "", err
	}
	raw := signed + "." + b64.EncodeToString(sig)
	if len(raw) > maxToken {
		return "", errTooLong
	}
	return raw, nil
}

// member is a claim to be written.
type member struct {
	name  string // [ClaimNames] sees to it that it needs no escapes
	value any
}

// payload writes the claims as JSON, in an order that is always the same.
func (c *Claims) payload(names ClaimNames) ([]byte, error) {
	id := names.User[0]
	if slices.Contains(names.User, "sub") {
		id = "sub"
	}
	members := []member{{id, c.UserID}}
	if c.Nickname != "" {
		members = append(members, member{names.Nickname, c.Nickname})
	}
	attrs, err := attrMembers(c.Attrs, names.Attrs)
	if err != nil {
		return nil, err
	}
	members = append(members, attrs...)
	if c.Issuer != "" {
		members = append(members, member{"iss", c.Issuer})
	}
	if c.Audience != "" {
		members = append(members, member{"aud", c.Audience})
	}
	members = append(members, member{"exp", c.Expires.Unix()})

	var b, compact bytes.Buffer
	// json.Marshal would escape <, > and & in attrs, which changes their bytes
	// and may push them over their bound.
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	separator := "{"
	for _, m := range members {
		b.WriteString(separator + `"` + m.name + `":`)
		separator = ","
		if err := e.Encode(m.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	err = json.Compact(&compact, b.Bytes()) // Encode ends each value with a line break
	return compact.Bytes(), err
}

// attrMembers gives attrs as they are read by these names.
func attrMembers(attrs json.RawMessage, names []string) ([]member, error) {
	switch {
	case len(attrs) == 0:
		return nil, nil
	case len(names) == 0:
		return []member{{"attrs", attrs}}, nil
	}
	var values map[string]json.RawMessage
	if json.Unmarshal(attrs, &values) != nil {
		return nil, errors.New("attrs is not a JSON object")
	}
	var members []member
	for _, name := range names {
		if value, ok := values[name]; ok {
			members = append(members, member{name, value})
		}
	}
	if len(members) < len(values) {
		return nil, fmt.Errorf("attrs has members other than those that have a claim, which are %q", names)
	}
	return members, nil
}
