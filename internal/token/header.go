package token

import (
	"cmp"
	"errors"
	"net/http"
	"strings"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// FromHeaders returns the token that a request carries, not yet verified: from
// "Authorization: Bearer …" (RFC 6750 section 2.1; the scheme in any case), or
// from the header token, which gateways of the platform set. A header without
// a token in it counts as absent, because a page that nobody is logged in to
// often sends one. It is refused as
//   - token.missing: there is no token;
//   - token.mismatch: the two differ, or one of them stands there twice, so
//     that it is not for us to say which is meant;
//   - token.invalid: Authorization has another scheme.
func FromHeaders(h http.Header) (string, error) {
	authorization, err := single(h, "Authorization")
	if err != nil {
		return "", err
	}
	plain, err := single(h, "Token")
	if err != nil {
		return "", err
	}
	scheme, bearer, _ := strings.Cut(authorization, " ")
	if authorization != "" && !strings.EqualFold(scheme, "Bearer") {
		return "", invalid(errors.New("header Authorization has a scheme other than Bearer"))
	}
	bearer = strings.TrimLeft(bearer, " ")
	if bearer != "" && plain != "" && bearer != plain {
		return "", &chat.Refusal{Code: chat.TokenMismatch, Cause: errors.New("headers Authorization and token differ")}
	}
	raw := cmp.Or(bearer, plain)
	if raw == "" {
		return "", chat.Refuse(chat.TokenMissing)
	}
	return raw, nil
}

// single is the one value of a header, "" where it is absent.
func single(h http.Header, name string) (string, error) {
	values := h.Values(name)
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return strings.Trim(values[0], " \t"), nil
	default:
		return "", &chat.Refusal{Code: chat.TokenMismatch, Cause: errors.New("header " + name + " stands there more than once")}
	}
}
