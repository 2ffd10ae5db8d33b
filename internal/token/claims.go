package token

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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
func (c *claims) user() (chat.User, error) {
	id, err := c.userID()
	if err != nil {
		return chat.User{}, err
	}
	nickname, err := c.string("nickname")
	if err != nil {
		return chat.User{}, invalid(err)
	}
	attrs, err := compactAttrs(c.member("attrs"))
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
		Expires:  exp.UTC(),
	}, nil
}

func (c *claims) userID() (string, error) {
	camel, err := c.id("userIdx")
	if err != nil {
		return "", invalid(err)
	}
	snake, err := c.id("user_idx")
	if err != nil {
		return "", invalid(err)
	}
	if camel != "" && snake != "" && camel != snake {
		return "", &chat.Refusal{Code: chat.TokenMismatch, Cause: errors.New("userIdx and user_idx name different users")}
	}
	if id := cmp.Or(camel, snake); id != "" {
		return id, nil
	}
	// Read only now: beside the platform's own claims sub may be anything,
	// such as an address.
	sub, err := c.id("sub")
	if err != nil {
		return "", invalid(err)
	}
	if sub == "" {
		return "", invalid(errors.New("none of userIdx, user_idx and sub is there"))
	}
	return sub, nil
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

// GetAudience reads aud, which is a string or an array of strings.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) {
	m := c.member("aud")
	if m == nil {
		return nil, nil
	}
	var aud jwt.ClaimStrings
	if json.Unmarshal(m, &aud) != nil {
		return nil, errors.New("aud is neither a string nor strings")
	}
	return aud, nil
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
