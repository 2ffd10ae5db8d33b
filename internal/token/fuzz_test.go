package token

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Whatever the payload, a user that is accepted can be told from a minted token
// in the same words, and a refusal is one that the catalogue knows.
func FuzzClaims(f *testing.F) {
	for _, payload := range []string{
		`{"userIdx":7,"user_idx":"7","nickname":"하늘","attrs":{"badge":"<vip>","n":[1e2]},"exp":221845392000}`,
		`{"sub":"u-7_x","nickname":" \u3164 ","attrs":{},"exp":2.21845392e11,"nbf":0,"iat":1}`,
		`{"sub":"someone@example.com","user_idx":1234567890123456789,"exp":221845392000.5}`,
		`{"userIdx":7,"user_idx":8,"exp":221845392000}`,
		`{"USERIDX":7,"sub":"1","sub":"2","exp":31337}`,
		`{"sub":"7","nickname":"\ud83d\ude00\u0301\u0301","exp":1}`,
		`{"sub":7,"nickname":"e\u0301 \u200d\ufe0f` + strings.Repeat("가", 50) + `","exp":253402300799}`,
		`null`,
	} {
		f.Add([]byte(payload))
	}
	v := newVerifier(f, Config{Secret: userSecret, OperatorSecret: operatorSecret})
	catalogue := chat.Catalogue()
	// Without the cache, whose goroutines make coverage differ from run to run.
	f.Fuzz(func(t *testing.T, payload []byte) {
		raw := hs256(userSecret, `{"alg":"HS256"}`, string(payload))
		u, err := v.rules.Load().verify(raw)
		if err != nil {
			r, ok := errors.AsType[*chat.Refusal](err)
			if !ok {
				t.Fatalf("got %T (%v), want a refusal", err, err)
			}
			if _, ok := catalogue[r.Code]; !ok || !strings.HasPrefix(string(r.Code), "token.") {
				t.Fatalf("got code %q, want a token.* of the catalogue", r.Code)
			}
			return
		}
		if !chat.ValidID(u.ID) || u.Nickname == "" || u.Role != "" || len(u.Attrs) > chat.MaxAttrs || u.Expires.IsZero() {
			t.Fatalf("got %+v, want a valid user without a role", u)
		}
		minted, err := Mint(operatorSecret, Claims{UserID: u.ID, Nickname: u.Nickname, Attrs: u.Attrs, Expires: u.Expires})
		if err != nil {
			t.Fatalf("Mint: %v", err)
		}
		got, err := v.rules.Load().verify(minted)
		if err != nil {
			t.Fatalf("minted from %+v: got error %v, want none", u, err)
		}
		want := u
		want.Role = chat.RoleOperator
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("minted:\ngot  %+v\nwant %+v", got, want)
		}
	})
}
