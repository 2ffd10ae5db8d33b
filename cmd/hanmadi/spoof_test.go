package main

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// clientFrom makes requests that come from an address.
func clientFrom(address string) *http.Client {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: d.DialContext}}
}

// forged is a request that claims to come from the gateway, or what would have
// to be one.
type forged struct {
	name    string
	from    string
	headers [][2]string
	code    string // "" for one that holds
}

// forgeries are all for the user 7, in whose room they are tried. The gateway's
// own address is nginxAddress.
func forgeries(othersToken string) []forged {
	const outside = "127.0.0.1"
	secret, user := [2]string{"X-Gateway-Secret", gatewaySecret}, [2]string{"x-forward-userIdx", "7"}
	return []forged{
		{"the gateway itself", nginxAddress, [][2]string{secret, user}, ""},
		{"from outside, with the secret", outside, [][2]string{secret, user}, "identity.untrusted"},
		{"from outside", outside, [][2]string{user}, "identity.untrusted"},
		{"from outside, only an e-mail", outside, [][2]string{{"x-forward-email", "a@example.com"}}, "identity.untrusted"},
		{"from a wrong network beside it", "127.0.0.10", [][2]string{secret, user}, "identity.untrusted"},
		{"from outside, forwarded for the gateway", outside, [][2]string{secret, user, {"X-Forwarded-For", nginxAddress}}, "identity.untrusted"},
		{"without the secret", nginxAddress, [][2]string{user}, "identity.untrusted"},
		{"with a wrong secret", nginxAddress, [][2]string{{"X-Gateway-Secret", gatewaySecret + "x"}, user}, "identity.untrusted"},
		{"with an empty secret", nginxAddress, [][2]string{{"X-Gateway-Secret", ""}, user}, "identity.untrusted"},
		{"with the secret twice", nginxAddress, [][2]string{secret, secret, user}, "identity.untrusted"},
		{"with the id twice", nginxAddress, [][2]string{secret, user, user}, "identity.invalid"},
		{"with two ids joined", nginxAddress, [][2]string{secret, {"x-forward-userIdx", "7, 8"}}, "identity.invalid"},
		{"with the nickname twice", nginxAddress, [][2]string{secret, user, {"x-forward-nickname", "a"}, {"x-forward-nickname", "b"}}, "identity.invalid"},
		{"with _ for -", nginxAddress, [][2]string{secret, {"x_forward_userIdx", "7"}}, "identity.invalid"},
		{"with one _ for -, beside another", nginxAddress, [][2]string{secret, user, {"x-forward_userIdx", "8"}}, "identity.invalid"},
		{"with _ for - in the secret", nginxAddress, [][2]string{{"X_Gateway_Secret", gatewaySecret}, user}, "identity.invalid"},
		{"from outside, with _ for -", outside, [][2]string{{"X_FORWARD_USERIDX", "7"}}, "identity.invalid"},
		{"with somebody else's token", nginxAddress, [][2]string{secret, user, {"token", othersToken}}, "token.mismatch"},
		{"with somebody else's Authorization", nginxAddress, [][2]string{secret, user, {"Authorization", "Bearer " + othersToken}}, "token.mismatch"},
		{"with a forged token", nginxAddress, [][2]string{secret, user, {"token", "a.b.c"}}, "token.invalid"},
	}
}

// header keeps the names as they are written.
func (f forged) header() http.Header {
	h := http.Header{}
	for _, pair := range f.headers {
		h[pair[0]] = append(h[pair[0]], pair[1])
	}
	return h
}

// Whoever goes around the gateway, or has got into its network, is refused with
// the code of what is wrong, wherever one can say who one is.
func TestSpoofedIdentities(t *testing.T) {
	p := newPlatform(t, "nginx")
	p.roomServer.live("7", 881)
	for _, f := range forgeries(p.issuer.token(t, "8", "남")) {
		p.forgeLine(f)
		p.forgeOldLine(f)
		p.forgeLink(f)
		p.forgeOldLink(f)
	}
	p.forgeInBody()
}

func (p *platform) forgeLine(f forged) {
	p.t.Helper()
	got := p.postAs(clientFrom(f.from), p.hanmadi.url(linePath), `{"text":"forged"}`, f.header())
	want := http.StatusUnauthorized
	if f.code == "" {
		want = http.StatusCreated
	}
	if got.status != want || got.refusal.Code != f.code {
		p.t.Errorf("%s, a line: got %d %s, want %d %s", f.name, got.status, got.body, want, f.code)
	}
}

// The original's answer has no codes: its sentence stands for all of these.
func (p *platform) forgeOldLine(f forged) {
	p.t.Helper()
	got := p.postAs(clientFrom(f.from), p.hanmadi.url("/send/message"), `{"presenterIdx":7,"textMessage":"forged"}`, f.header())
	if f.code == "" && (got.status != http.StatusOK || got.body != "") ||
		f.code != "" && (got.status != http.StatusBadRequest || !strings.Contains(got.body, `"message":"토큰이 변조되었습니다."`)) {
		p.t.Errorf("%s, an old line: got %d %s", f.name, got.status, got.body)
	}
}

// dialAs opens a WebSocket past the gateway, and gives its first message and how
// it was closed after it.
func (p *platform) dialAs(f forged, path string) (first string, code int) {
	p.t.Helper()
	conn, _, err := websocket.Dial(p.t.Context(), "ws://"+p.hanmadi.listen+path, &websocket.DialOptions{HTTPHeader: f.header(), HTTPClient: clientFrom(f.from)})
	if err != nil {
		p.t.Errorf("%s, %s: %v", f.name, path, err)
		return "", 0
	}
	defer conn.CloseNow()
	if f.code == "" && path == "/chatting" {
		return "", 0 // which says nothing until there is a line
	}
	_, data, err := conn.Read(p.t.Context())
	if err == nil && f.code != "" {
		_, _, err = conn.Read(p.t.Context())
	}
	return string(data), closeCode(err)
}

func (p *platform) forgeLink(f forged) {
	p.t.Helper()
	first, code := p.dialAs(f, "/v1/presenter")
	if f.code == "" && !strings.Contains(first, `"welcome"`) || f.code != "" && (!strings.Contains(first, `"code":"`+f.code+`"`) || code != 4501) {
		p.t.Errorf("%s, a link: got %s, closed with %d; want %s and 4501", f.name, first, code, f.code)
	}
}

func (p *platform) forgeOldLink(f forged) {
	p.t.Helper()
	const reject = `{"id":"tokenException","response":"reject","message":"Jwt Exception"}`
	first, code := p.dialAs(f, "/chatting")
	if f.code != "" && (first != reject || code != 4501) {
		p.t.Errorf("%s, an old link: got %s, closed with %d; want %s and 4501", f.name, first, code, reject)
	}
}

// forgeInBody gives another user in a body or a frame than the gateway does.
func (p *platform) forgeInBody() {
	p.t.Helper()
	gateway := forged{from: nginxAddress, headers: [][2]string{{"X-Gateway-Secret", gatewaySecret}, {"x-forward-userIdx", "7"}}}
	others := p.issuer.token(p.t, "8", "남")
	got := p.postAs(clientFrom(gateway.from), p.hanmadi.url("/send/message"), `{"textMessage":"forged","token":"`+others+`"}`, gateway.header())
	if got.status != http.StatusBadRequest || !strings.Contains(got.body, "토큰이 변조되었습니다.") {
		p.t.Errorf("somebody else's token in the body: got %d %s", got.status, got.body)
	}
	conn, _, err := websocket.Dial(p.t.Context(), "ws://"+p.hanmadi.listen+"/chatting", &websocket.DialOptions{HTTPHeader: gateway.header(), HTTPClient: clientFrom(gateway.from)})
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.CloseNow()
	if err := conn.Write(p.t.Context(), websocket.MessageText, []byte(`{"id":"start","token":"`+others+`"}`)); err != nil {
		p.t.Fatal(err)
	}
	for err == nil {
		_, _, err = conn.Read(p.t.Context())
	}
	if code := closeCode(err); code != 4501 {
		p.t.Errorf("somebody else's token in the start frame: closed with %d (%v), want 4501", code, err)
	}
}

// Links are counted for the address that the gateway names, which nobody else
// can; the gateway itself has none.
func TestSpoofedAddresses(t *testing.T) {
	p := newPlatform(t, "nginx", "HANMADI_LINK_PER_ADDRESS=2")
	open := func(from string, forwarded string) int {
		t.Helper()
		f := forged{from: from}
		if forwarded != "" {
			f.headers = [][2]string{{"X-Forwarded-For", forwarded}}
		}
		conn, resp, err := websocket.Dial(t.Context(), "ws://"+p.hanmadi.listen+"/chatting", &websocket.DialOptions{HTTPHeader: f.header(), HTTPClient: clientFrom(from)})
		if err != nil && resp == nil {
			t.Fatal(err)
		}
		if err == nil {
			t.Cleanup(func() { _ = conn.CloseNow() })
		}
		return resp.StatusCode
	}
	for _, c := range []struct {
		from, forwarded string
		want            int
	}{
		{"127.0.0.1", "203.0.113.1", 101}, {"127.0.0.1", "203.0.113.2", 101},
		{"127.0.0.1", "203.0.113.3", 429}, // from outside: what it says of itself counts for nothing
		{nginxAddress, "203.0.113.4", 101}, {nginxAddress, "198.51.100.1, 203.0.113.4", 101},
		{nginxAddress, "198.51.100.2, 203.0.113.4", 429}, // the hops to the left are the client's to invent
		{nginxAddress, "203.0.113.5", 101},
		{nginxAddress, "", 101}, {nginxAddress, "", 101}, {nginxAddress, "", 101},
	} {
		if got := open(c.from, c.forwarded); got != c.want {
			t.Errorf("from %s, forwarded for %q: got %d, want %d", c.from, c.forwarded, got, c.want)
		}
	}
	// nginx says who it is from, whatever came in: 127.0.0.1 has its two already.
	_, resp, err := websocket.Dial(t.Context(), "ws://"+p.gateway.address+"/chatting", &websocket.DialOptions{HTTPHeader: http.Header{"X-Forwarded-For": {"203.0.113.9"}}})
	if err == nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("through nginx, with an address of its own making: got %v, want 429", err)
	}
}
