package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// maxIDDigits is what a number that names a user may have, enough for int64.
const maxIDDigits = 19

// maxDate is 9999-12-31T23:59:59Z: the last second that RFC 3339 can write. A
// date beyond it is nearly always in milliseconds.
const maxDate = 253402300799

// claims is a token's payload. The parser of tokens only keeps its bytes here;
// decode reads them once the signature has been verified.
//
// Members stay in a map because encoding/json would fill a struct's userIdx
// from a claim named USERIDX: whoever can choose the name of any claim could
// then be anybody.
type claims struct {
	raw     []byte
	members map[string]json.RawMessage
}

// UnmarshalJSON keeps the bytes.
func (c *claims) UnmarshalJSON(data []byte) error {
	c.raw = bytes.Clone(data)
	return nil
}

// decode reads the members. The decoder's error quotes the payload, so it is
// not passed on.
func (c *claims) decode() error {
	if wire.Decode(c.raw, &c.members) != nil {
		return errors.New("payload is not a JSON object, valid UTF-8, with each name once in any case")
	}
	return nil
}

// member is a claim's JSON, nil where it is absent or null.
func (c *claims) member(name string) json.RawMessage {
	m := c.members[name]
	if len(m) == 0 || string(m) == "null" {
		return nil
	}
	return m
}

// user reads who the token stands for. Its errors are refusals.
func (c *claims) user(names ClaimNames) (chat.User, error) {
	id, err := c.userID(names.User)
	if err != nil {
		return chat.User{}, err
	}
	nickname, err := c.string(names.Nickname)
	if err != nil {
		return chat.User{}, invalid(err)
	}
	attrs, err := c.attrs(names.Attrs)
	if err != nil {
		return chat.User{}, invalid(err)
	}
	roles, err := c.roles(names.Role)
	if err != nil {
		return chat.User{}, invalid(err)
	}
	exp, err := c.date("exp")
	if err != nil {
		return chat.User{}, invalid(err)
	}
	if exp == nil {
		return chat.User{}, invalid(errors.New("exp is missing"))
	}
	return chat.User{
		ID:       id,
		Nickname: text.Nickname(nickname, id),
		Attrs:    attrs,
		Claimed:  roles,
		Expires:  exp.UTC(),
	}, nil
}

// userID reads the user's id by the rule of [ClaimNames].
func (c *claims) userID(names []string) (string, error) {
	var id, from string
	for _, name := range names {
		if name == "sub" {
			continue
		}
		next, err := c.id(name)
		switch {
		case err != nil:
			return "", invalid(err)
		case next == "":
		case id == "":
			id, from = next, name
		case id != next:
			return "", &chat.Refusal{Code: chat.TokenMismatch, Cause: fmt.Errorf("%s and %s name different users", from, name)}
		}
	}
	if id == "" && slices.Contains(names, "sub") {
		var err error
		if id, err = c.id("sub"); err != nil {
			return "", invalid(err)
		}
	}
	if id == "" {
		return "", invalid(fmt.Errorf("no user: of %s none is there", strings.Join(names, ", ")))
	}
	return id, nil
}

// id reads a claim that names a user, "" where it is absent. A number is never
// made a float64, which would round the last digits of a large id to those of
// somebody else.
func (c *claims) id(name string) (string, error) {
	m := c.member(name)
	if m == nil {
		return "", nil
	}
	id := string(m)
	if m[0] == '"' {
		if err := json.Unmarshal(m, &id); err != nil {
			return "", fmt.Errorf("%s is not a string", name)
		}
	} else if len(m) > maxIDDigits || len(bytes.Trim(m, "0123456789")) > 0 {
		return "", fmt.Errorf("%s is neither a string nor an integer of 1 to %d digits", name, maxIDDigits)
	}
	if !chat.ValidID(id) {
		return "", fmt.Errorf("%s is not the id of a user", name)
	}
	return id, nil
}

// string reads a string, "" where it is absent.
func (c *claims) string(name string) (s string, err error) {
	m := c.member(name)
	if m == nil {
		return "", nil
	}
	if json.Unmarshal(m, &s) != nil {
		return "", fmt.Errorf("%s is not a string", name)
	}
	return s, nil
}

// strings reads a string or an array of strings, nil where it is absent.
func (c *claims) strings(name string) (list jwt.ClaimStrings, err error) {
	m := c.member(name)
	if m == nil {
		return nil, nil
	}
	if json.Unmarshal(m, &list) != nil {
		return nil, fmt.Errorf("%s is neither a string nor strings", name)
	}
	return list, nil
}

// date reads a NumericDate (RFC 7519 section 2) in whole seconds, nil where it
// is absent.
func (c *claims) date(name string) (*jwt.NumericDate, error) {
	m := c.member(name)
	if m == nil {
		return nil, nil
	}
	var seconds float64
	if json.Unmarshal(m, &seconds) != nil || seconds < 0 || seconds > maxDate {
		return nil, fmt.Errorf("%s is not a number of seconds between 1970 and 9999", name)
	}
	return &jwt.NumericDate{Time: time.Unix(int64(math.Floor(seconds)), 0)}, nil
}

// The methods of jwt.Claims, for the validator.

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.date("exp") }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return c.date("nbf") }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return c.date("iat") }
func (c *claims) GetIssuer() (string, error)                   { return c.string("iss") }
func (c *claims) GetSubject() (string, error)                  { return c.id("sub") }

func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.strings("aud") }

// attrs reads the user's attrs, nil where there are none: the claim attrs, or an
// object of the claims that are named.
func (c *claims) attrs(names []string) (json.RawMessage, error) {
	if len(names) == 0 {
		return compactAttrs(c.member("attrs"))
	}
	var b bytes.Buffer
	for _, name := range names {
		m := c.member(name)
		if m == nil {
			continue
		}
		if m[0] == '{' || m[0] == '[' {
			return nil, fmt.Errorf("%s, one of the attrs, is none of string, number and boolean", name)
		}
		separator := byte(',')
		if b.Len() == 0 {
			separator = '{'
		}
		b.WriteByte(separator)
		b.WriteString(`"` + name + `":`) // checkNames saw that it needs no escapes
		b.Write(m)
	}
	if b.Len() == 0 {
		return nil, nil
	}
	b.WriteByte('}')
	return compactAttrs(b.Bytes())
}

// compactAttrs gives attrs as they stand in every row of their user. Attrs of
// another type or too large are an error rather than dropped: a platform whose
// badges do not show should learn why.
func compactAttrs(attrs json.RawMessage) (json.RawMessage, error) {
	if len(attrs) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	if json.Compact(&b, attrs) != nil || b.Bytes()[0] != '{' {
		return nil, errors.New("attrs is not a JSON object")
	}
	if b.Len() > chat.MaxAttrs {
		return nil, fmt.Errorf("attrs is longer than %d bytes", chat.MaxAttrs)
	}
	return b.Bytes(), nil
}

// Bounds of [chat.User].Claimed.
const (
	maxRoles     = 16
	maxRoleBytes = 64
)

// roles reads the claim of roles, nil where there is none. Empty strings are no
// roles: some platforms write "" for their ordinary users. As with attrs, what
// is out of bounds is an error.
func (c *claims) roles(name string) ([]string, error) {
	if name == "" || c.member(name) == nil {
		return nil, nil
	}
	roles, err := c.strings(name)
	if err != nil {
		return nil, err
	}
	roles = slices.DeleteFunc(roles, func(role string) bool { return role == "" })
	if len(roles) > maxRoles || slices.ContainsFunc(roles, func(role string) bool { return len(role) > maxRoleBytes }) {
		return nil, fmt.Errorf("%s is more than %d roles, or one longer than %d bytes", name, maxRoles, maxRoleBytes)
	}
	if len(roles) == 0 {
		return nil, nil
	}
	return roles, nil
}
