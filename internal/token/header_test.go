package token

import (
	"net/http"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

func TestFromHeaders(t *testing.T) {
	type values []string
	tests := []struct {
		name                 string
		authorization, token values
		want                 string
		code                 chat.Code // "" if accepted
	}{
		{"neither", nil, nil, "", chat.TokenMissing},
		{"bearer", values{"Bearer MARK"}, nil, "MARK", ""},
		{"bearer in lower case", values{"bearer MARK"}, nil, "MARK", ""},
		{"bearer in capitals", values{"BEARER MARK"}, nil, "MARK", ""},
		{"bearer, two spaces", values{"Bearer  MARK "}, nil, "MARK", ""},
		{"token", nil, values{"MARK"}, "MARK", ""},
		{"both, the same", values{"Bearer MARK"}, values{"MARK"}, "MARK", ""},
		{"both, different", values{"Bearer MARK"}, values{"MARK2"}, "", chat.TokenMismatch},
		{"both, different in case", values{"Bearer MARK"}, values{"mark"}, "", chat.TokenMismatch},
		{"bearer twice", values{"Bearer MARK", "Bearer MARK"}, nil, "", chat.TokenMismatch},
		{"token twice", nil, values{"MARK", "MARK"}, "", chat.TokenMismatch},
		{"token twice, one empty", nil, values{"", "MARK"}, "", chat.TokenMismatch},
		{"token twice beside bearer", values{"Bearer MARK"}, values{"MARK", "MARK"}, "", chat.TokenMismatch},
		{"another scheme", values{"Basic MARK"}, nil, "", chat.TokenInvalid},
		{"another scheme beside token", values{"Basic MARK"}, values{"MARK"}, "", chat.TokenInvalid},
		{"scheme that begins alike", values{"BearerX MARK"}, nil, "", chat.TokenInvalid},
		{"no scheme", values{"MARK"}, nil, "", chat.TokenInvalid},
		{"tab for a space", values{"Bearer\tMARK"}, nil, "", chat.TokenInvalid},
		{"both empty", values{""}, values{""}, "", chat.TokenMissing},
		{"bearer of nobody", values{"Bearer"}, nil, "", chat.TokenMissing},
		{"bearer of nobody, with a space", values{"Bearer "}, nil, "", chat.TokenMissing},
		{"bearer of nobody beside token", values{"Bearer"}, values{"MARK"}, "MARK", ""},
		{"empty token beside bearer", values{"Bearer MARK"}, values{" "}, "MARK", ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h := http.Header{}
			for _, v := range tc.authorization {
				h.Add("Authorization", v)
			}
			for _, v := range tc.token {
				h.Add("token", v)
			}
			got, err := FromHeaders(h)
			if tc.code != "" {
				wantRefusal(t, err, tc.code, "MARK")
			} else if err != nil {
				t.Errorf("got error %v, want none", err)
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
