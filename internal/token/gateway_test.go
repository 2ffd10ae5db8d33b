package token

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
)

const gatewaySecret = "a gateway's secret of 32 bytes or more"

func gateway() *Gateway {
	return &Gateway{From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Secret: []byte(gatewaySecret), Header: "X-Gateway-Secret"}
}

func TestGatewayIdentity(t *testing.T) {
	inside, outside := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("192.0.2.1")
	secret := []string{"X-Gateway-Secret", gatewaySecret}
	for _, c := range []struct {
		name     string
		peer     netip.Addr
		headers  []string
		want     chat.Code // "" for believed
		id, nick string
	}{
		{"whole", inside, append(secret, "X-Forward-Useridx", "42", "X-Forward-Nickname", "%ED%95%98%EB%8A%98+%EB%B3%84", "X-Forward-Email", "a@b.c"), "", "42", "하늘 별"},
		{"IPv4 in IPv6", netip.MustParseAddr("::ffff:10.1.2.3"), append(secret, "X-Forward-Useridx", "42"), "", "42", "42"},
		{"an empty nickname", inside, append(secret, "X-Forward-Useridx", "42", "X-Forward-Nickname", ""), "", "42", "42"},
		{"from elsewhere", outside, append(secret, "X-Forward-Useridx", "42"), chat.IdentityUntrusted, "", ""},
		{"without the secret", inside, []string{"X-Forward-Useridx", "42"}, chat.IdentityUntrusted, "", ""},
		{"with a wrong secret", inside, []string{"X-Gateway-Secret", "x" + gatewaySecret, "X-Forward-Useridx", "42"}, chat.IdentityUntrusted, "", ""},
		{"with the secret twice", inside, append(secret, "X-Gateway-Secret", gatewaySecret, "X-Forward-Useridx", "42"), chat.IdentityUntrusted, "", ""},
		{"only an e-mail, from elsewhere", outside, []string{"X-Forward-Email", "a@b.c"}, chat.IdentityUntrusted, "", ""},
		{"only a nickname", inside, append(secret, "X-Forward-Nickname", "x"), chat.IdentityInvalid, "", ""},
		{"the id twice", inside, append(secret, "X-Forward-Useridx", "42", "X-Forward-Useridx", "42"), chat.IdentityInvalid, "", ""},
		{"the nickname twice", inside, append(secret, "X-Forward-Useridx", "42", "X-Forward-Nickname", "a", "X-Forward-Nickname", "b"), chat.IdentityInvalid, "", ""},
		{"no id", inside, append(secret, "X-Forward-Useridx", "a b"), chat.IdentityInvalid, "", ""},
		{"a nickname that is not encoded", inside, append(secret, "X-Forward-Useridx", "42", "X-Forward-Nickname", "%zz"), chat.IdentityInvalid, "", ""},
		{"an underscore beside the real one", inside, append(secret, "X-Forward-Useridx", "42", "X_forward-Useridx", "7"), chat.IdentityInvalid, "", ""},
		{"only underscores, from outside", outside, []string{"x_forward_useridx", "7"}, chat.IdentityInvalid, "", ""},
		{"the e-mail twice", inside, append(secret, "X-Forward-Useridx", "42", "X-Forward-Email", "a@b", "X-Forward-Email", "c@d"), chat.IdentityInvalid, "", ""},
		{"two nicknames joined by a proxy", inside, append(secret, "X-Forward-Useridx", "42", "X-Forward-Nickname", "a, b"), chat.IdentityInvalid, "", ""},
		{"a nickname with a comma", inside, append(secret, "X-Forward-Useridx", "42", "X-Forward-Nickname", "a%2C+b"), "", "42", "a, b"},
		{"the secret with an underscore", inside, []string{"X_gateway_secret", gatewaySecret, "X-Forward-Useridx", "7"}, chat.IdentityInvalid, "", ""},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		for i := 0; i < len(c.headers); i += 2 {
			r.Header.Add(c.headers[i], c.headers[i+1])
		}
		user, found, err := gateway().User(r, c.peer)
		var ref *chat.Refusal
		switch {
		case !found:
			t.Errorf("%s: not seen", c.name)
		case c.want == "" && (err != nil || user.ID != c.id || user.Nickname != c.nick || user.Role != ""):
			t.Errorf("%s: got %+v %v, want %s %s", c.name, user, err, c.id, c.nick)
		case c.want != "" && (!errors.As(err, &ref) || ref.Code != c.want):
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		case err != nil && strings.Contains(err.Error(), "42"):
			t.Errorf("%s: the error tells who: %v", c.name, err)
		case len(r.Header.Values("X-Forward-Email")) > 0 || len(r.Header.Values("X-Gateway-Secret")) > 0:
			t.Errorf("%s: the e-mail or the secret is still in the request", c.name)
		}
	}
}

func TestNoGatewayLooksAtNoHeader(t *testing.T) {
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("X-Forward-Useridx", "42")
	if user, found, err := new(Gateway).User(r, netip.MustParseAddr("10.0.0.1")); found || err != nil {
		t.Errorf("got %+v %v %v, want nothing", user, found, err)
	}
	r = httptest.NewRequest("POST", "/", nil)
	if _, found, err := gateway().User(r, netip.MustParseAddr("192.0.2.1")); found || err != nil {
		t.Errorf("a request without identity headers: %v %v, want nothing", found, err)
	}
}

func TestGatewayConfiguration(t *testing.T) {
	if err := new(Gateway).Check(); err != nil {
		t.Errorf("no gateway: %v", err)
	}
	for want, change := range map[string]func(*Gateway){"gateway.secret": func(g *Gateway) { g.Secret = []byte("short") }, "gateway.header": func(g *Gateway) { g.Header = "" }} {
		g := gateway()
		change(g)
		if err := g.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that names %s", err, want)
		}
	}
}

func TestAddressThatLimitsAreCountedFor(t *testing.T) {
	for _, c := range []struct {
		peer, forwarded, want string
		exempt                bool
	}{
		{"192.0.2.1", "", "192.0.2.1", false},
		{"192.0.2.1", "203.0.113.9", "192.0.2.1", false}, // not our gateway: what it says counts for nothing
		{"10.0.0.1", "203.0.113.9", "203.0.113.9", false},
		{"10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9", false}, // the left ones are what the client claims
		{"10.0.0.1", "203.0.113.9, 10.9.9.9", "203.0.113.9", false},
		{"10.0.0.1", "203.0.113.9:1234", "203.0.113.9", false},
		{"10.0.0.1", "[2001:db8::1]:443", "2001:db8::1", false},
		{"10.0.0.1", "2001:db8::1", "2001:db8::1", false},
		{"10.0.0.1", "", "10.0.0.1", true},
		{"10.0.0.1", "203.0.113.9, rubbish", "10.0.0.1", true},
		{"10.0.0.1", "10.0.0.7", "10.0.0.1", true},
	} {
		h := http.Header{}
		if c.forwarded != "" {
			h.Set("X-Forwarded-For", c.forwarded)
		}
		got, exempt := gateway().Client(h, netip.MustParseAddr(c.peer))
		if got.String() != c.want || exempt != c.exempt {
			t.Errorf("peer %s, X-Forwarded-For %q: got %s exempt=%v, want %s %v", c.peer, c.forwarded, got, exempt, c.want, c.exempt)
		}
	}
}

// Whatever stands in the headers, who is believed has an id and a name that were
// cleaned, and came with the secret; an address is never one of the gateway's.
func FuzzGateway(f *testing.F) {
	f.Add("42", "%ED%95%98+x", gatewaySecret, "203.0.113.9, 10.9.9.9", false)
	f.Add("a b", "%zz", "x", "[2001:db8::1]:443", true)
	f.Add("", "a,b", "", "rubbish,, ,::ffff:10.0.0.1", true)
	f.Fuzz(func(t *testing.T, id, nickname, secret, forwarded string, doubled bool) {
		h := http.Header{"X-Forward-Useridx": {id}, "X-Forward-Nickname": {nickname}, "X-Gateway-Secret": {secret}, "X-Forwarded-For": {forwarded}}
		if doubled {
			h.Add("X-Forward-Useridx", id)
		}
		g, peer := gateway(), netip.MustParseAddr("10.1.2.3")
		user, found, err := g.User(&http.Request{Header: h}, peer)
		switch {
		case !found:
			t.Error("identity headers that were not seen")
		case err == nil && (secret != gatewaySecret || doubled || user.ID != id || !chat.ValidID(id) || user.Nickname != text.Nickname(user.Nickname, "")):
			t.Errorf("believed %+v", user)
		case err != nil && user.ID+user.Nickname != "":
			t.Errorf("refused (%v) and named %+v", err, user)
		}
		if client, exempt := g.Client(h, peer); !client.IsValid() || g.Trusts(client) != exempt {
			t.Errorf("X-Forwarded-For %q: %s, exempt %t", forwarded, client, exempt)
		}
	})
}
