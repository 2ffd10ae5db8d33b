package token

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

func TestMint(t *testing.T) {
	v := newVerifier(t, Config{Secret: userSecret, OperatorSecret: operatorSecret, Issuer: "us", Audience: "chat"})
	end := time.Unix(farOff, 0).UTC()
	claims := Claims{
		UserID: "42", Nickname: "하늘 <3", Attrs: json.RawMessage(`{ "badge": "<&>" }`),
		Issuer: "us", Audience: "chat", Expires: end.Add(999 * time.Millisecond),
	}
	want := chat.User{ID: "42", Nickname: "하늘 <3", Attrs: json.RawMessage(`{"badge":"<&>"}`), Expires: end}
	for role, secret := range map[chat.Role][]byte{"": userSecret, chat.RoleOperator: operatorSecret} {
		raw, err := Mint(secret, claims)
		if err != nil {
			t.Fatalf("Mint: %v", err)
		}
		got, err := v.Verify(raw)
		if err != nil {
			t.Fatalf("Verify: %v", err)
		}
		want.Role = role
		if !reflect.DeepEqual(got, want) {
			t.Errorf("role %q:\ngot  %+v\nwant %+v", role, got, want)
		}
	}
}

func TestMintLeavesOut(t *testing.T) {
	raw, err := Mint(userSecret, Claims{UserID: "42", Expires: time.Unix(farOff, 0)})
	if err != nil {
		t.Fatal(err)
	}
	want := hs256(userSecret, `{"alg":"HS256","typ":"JWT"}`, `{"sub":"42","exp":221845392000}`)
	if raw != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}

func TestMintRefuses(t *testing.T) {
	end := time.Unix(farOff, 0)
	tests := []struct {
		name   string
		secret []byte
		claims Claims
		want   string
	}{
		{"short secret", []byte("x"), Claims{UserID: "42", Expires: end}, "secret has 1 bytes"},
		{"no user", userSecret, Claims{Expires: end}, "sub is not the id of a user"},
		{"bad user", userSecret, Claims{UserID: "a b", Expires: end}, "sub is not the id of a user"},
		{"no end", userSecret, Claims{UserID: "42"}, "exp is not a number of seconds"},
		{"end beyond 9999", userSecret, Claims{UserID: "42", Expires: time.Unix(maxDate+1, 0)}, "exp is not a number of seconds"},
		{"attrs not JSON", userSecret, Claims{UserID: "42", Attrs: json.RawMessage(`{`), Expires: end}, "JSON"},
		{"attrs an array", userSecret, Claims{UserID: "42", Attrs: json.RawMessage(`[]`), Expires: end}, "attrs is not a JSON object"},
		{"attrs too large", userSecret, Claims{UserID: "42", Attrs: json.RawMessage(attrsOf(chat.MaxAttrs + 1)), Expires: end}, "attrs is longer"},
		{"attrs with a name twice", userSecret, Claims{UserID: "42", Attrs: json.RawMessage(`{"a":1,"a":2}`), Expires: end}, "each name once"},
		{"too long", userSecret, Claims{UserID: "42", Issuer: strings.Repeat("x", 3100), Expires: end}, "longer than 4096 bytes"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			raw, err := Mint(tc.secret, tc.claims)
			if err == nil {
				t.Fatalf("got %s, want an error", raw)
			}
			if got := err.Error(); !strings.HasPrefix(got, "token: ") || !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want token: and %q", got, tc.want)
			}
		})
	}
}
