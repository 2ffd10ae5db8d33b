package token

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

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

// Whatever an endpoint serves as a key set, the keys taken from it are public
// ones of our algorithms, and the same when they are written again; and a token
// that nobody signed is nobody's.
func FuzzParseSet(f *testing.F) {
	private := privateKeys()
	for _, set := range []string{
		setOf(jwkA(), jwkB()), setOf(jwkOf(private.rsa.Public(), "r", `,"alg":"RS256"`)), setOf(jwkOf(private.ed.Public(), "", `,"d":"x"`)),
		setOf(`{"kty":"oct","k":"c2VjcmV0"}`), setOf(`{"kty":"RSA","n":"AQAB","e":"AQAB"}`), `{"keys":[]}`, `{"keys":[1]}`, `{"keys":[],"Keys":[]}`, `[]`,
	} {
		f.Add([]byte(set))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseSet(data)
		if (err == nil) != (len(keys) > 0) || len(keys) > maxSetKeys {
			t.Fatalf("%q: got %d keys and %v", data, len(keys), err)
		}
		for _, k := range keys {
			if k.role != "" || k.method.Alg() == jwt.SigningMethodHS256.Alg() || !slices.Contains(algorithms, k.method.Alg()) {
				t.Errorf("%q: got a key of %s with the role %q", data, k.method.Alg(), k.role)
			}
			kid, err := json.Marshal(k.id)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseSet([]byte(setOf(jwkOf(k.material, "", `,"kid":`+string(kid)))))
			if err != nil || !reflect.DeepEqual(again, ring{k}) {
				t.Errorf("%q: a key, written again: got %+v %v, want %+v", data, again, err, k)
			}
		}
		if _, err := keys.find(unverified{alg: "none"}); err == nil {
			t.Errorf("%q: a token that nobody signed is taken", data)
		}
	})
}

// Whatever stands in the headers, nobody but the gateway names a user, who is
// then one with a valid id; and the address that limits are counted for is never
// the gateway's own, unless that names nobody.
func FuzzGatewayHeaders(f *testing.F) {
	secret := strings.Repeat("s", minSecret)
	f.Add("7", "%ED%95%98%EB%8A%98+1", secret, "203.0.113.7, 10.0.0.9", "10.0.0.1")
	f.Add("7", "", "", "203.0.113.7:1234, [2001:db8::1]:5", "10.0.0.1")
	f.Add("", "%zz", secret, ",,", "::ffff:10.0.0.1")
	f.Add("a b", "x", secret, "10.0.0.9, unknown", "192.0.2.1")
	gateway := Gateway{From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Secret: []byte(secret), Header: "X-Gateway-Secret"}
	f.Fuzz(func(t *testing.T, id, nickname, shown, hops, from string) {
		peer, err := netip.ParseAddr(from)
		if err != nil {
			return
		}
		h := http.Header{headerUser: {id}, headerNickname: {nickname}, headerEmail: {"e@mail.example"}, "X-Gateway-Secret": {shown}, "X-Forwarded-For": {hops}}
		client, exempt := gateway.Client(h, peer)
		if trusted := gateway.Trusts(peer); exempt && !trusted || !exempt && gateway.Trusts(client) || !trusted && client != peer.Unmap() {
			t.Errorf("hops %q from %s: got %s, exempt %t", hops, peer, client, exempt)
		}
		u, found, err := gateway.User(&http.Request{Header: h}, peer)
		if !found || err == nil && (!gateway.Trusts(peer) || shown != secret || u.ID != id || !chat.ValidID(u.ID) || u.Nickname == "" || u.Role != "") {
			t.Errorf("user %q, nickname %q, from %s: got %+v %t %v", id, nickname, peer, u, found, err)
		}
		if err != nil {
			if r, ok := errors.AsType[*chat.Refusal](err); !ok || !strings.HasPrefix(string(r.Code), "identity.") {
				t.Errorf("got %v, want a refusal of the identity", err)
			}
		}
		if len(h[headerEmail]) > 0 || len(h["X-Gateway-Secret"]) > 0 {
			t.Errorf("headers: got %v, want no e-mail address and no secret in them", h)
		}
	})
}
