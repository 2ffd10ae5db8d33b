package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// answer is what came back for a request.
type answer struct {
	status  int
	header  http.Header
	body    string
	refusal problem
}

// post sends a line through the gateway, or past it; headers are pairs.
func (p *platform) post(url, body string, headers ...string) answer {
	p.t.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		h[headers[i]] = append(h[headers[i]], headers[i+1]) // Add would write the names its own way
	}
	return p.postAs(fresh, url, body, h)
}

// postAs does so with a client. The status is 0 when no whole answer came.
func (p *platform) postAs(client *http.Client, url, body string, h http.Header) answer {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return answer{}
	}
	req.Header = h
	req.Header.Set("Content-Type", "application/json")
	req.GetBody = nil // net/http would repeat requests with a key by itself
	resp, err := client.Do(req)
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(data)}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		if err := json.Unmarshal(data, &a.refusal); err != nil {
			p.t.Errorf("%s: %v", data, err)
		}
	}
	return a
}

const linePath = "/v1/rooms/7/messages"

// lastLine is the newest event of room 7.
func (p *platform) lastLine() event {
	p.t.Helper()
	var page struct{ Events []event }
	if status := request(p.t, http.MethodGet, p.gateway.url("/v1/rooms/7/events?limit=1"), "", "", &page); status != http.StatusOK || len(page.Events) != 1 {
		p.t.Fatalf("the newest event: status %d, %+v", status, page)
	}
	return page.Events[0]
}

// Each gateway, with its sample as it stands: who a line is from, and what of
// what a client claims gets through.
func TestGatewaySamples(t *testing.T) {
	for _, name := range []string{"nginx", "caddy"} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t, name)
			p.roomServer.live("7", 881)
			p.checkIdentities()
			p.checkStripping()
			p.checkSubprotocol()
			p.checkOriginalLink()
			p.checkLimits()
			p.hanmadi.stop()
			p.checkNothingKept()
		})
	}
}

func (p *platform) checkIdentities() {
	p.t.Helper()
	token := p.issuer.token(p.t, "42", "하늘")
	for _, c := range []struct {
		name      string
		headers   []string
		user      string
		nickname  string
		code      string // of a refusal
		wantError int
	}{
		{"the login service's word", []string{"Cookie", "session=43"}, "43", "시청자 43", "", 0},
		{"a token in a cookie", []string{"Cookie", "a=b; token=" + token}, "42", "하늘", "", 0},
		{"a token in the header token", []string{"Token", token}, "42", "하늘", "", 0},
		{"a token in Authorization", []string{"Authorization", "Bearer " + token}, "42", "하늘", "", 0},
		{"a session and a token of the same", []string{"Cookie", "session=42; token=" + token}, "42", "하늘", "", 0},
		{"a session and somebody else's token", []string{"Cookie", "session=43; token=" + token}, "", "", "token.mismatch", 401},
		{"nobody", nil, "", "", "token.missing", 401},
		{"a forged token", []string{"Cookie", "token=a.b.c"}, "", "", "token.invalid", 401},
		{"another site's page, to a session", []string{"Cookie", "session=43", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, "", "", "origin.foreign", 403},
	} {
		got := p.post(p.gateway.url(linePath), `{"text":"`+c.name+`"}`, c.headers...)
		if c.code != "" {
			if got.status != c.wantError || got.refusal.Code != c.code {
				p.t.Errorf("%s: got %d %s, want %d %s", c.name, got.status, got.body, c.wantError, c.code)
			}
			continue
		}
		last := p.lastLine()
		if got.status != http.StatusCreated || last.Text != c.name || last.User.ID != c.user || last.User.Nickname != c.nickname {
			p.t.Errorf("%s: got %d %s, logged %+v; want it from %s %s", c.name, got.status, got.body, last, c.user, c.nickname)
		}
	}
}

// What a client claims of itself never arrives: it is neither believed nor
// refused, because the gateway took it away.
func (p *platform) checkStripping() {
	p.t.Helper()
	for _, claimed := range [][]string{
		{"X-Forward-Useridx", "7", "X-Forward-Nickname", "boss", "X-Forward-Email", "spy@example.com"},
		{"x-forward-userIdx", "7", "X-Gateway-Secret", gatewaySecret},
		{"X_Forward_Useridx", "7"}, {"x_forward-useridx", "7"}, {"X-Forward_Useridx", "7"},
		{"X_Gateway_Secret", "x"}, {"X-Gateway_Secret", "x"}, {"X_Forward_Email", "spy@example.com"},
		{"X-Forward-Useridx", "7", "X-Forward-Useridx", "8"},
	} {
		got := p.post(p.gateway.url(linePath), `{"text":"claims"}`, append([]string{"Cookie", "session=43"}, claimed...)...)
		if last := p.lastLine(); got.status != http.StatusCreated || last.User.ID != "43" || last.User.Nickname != "시청자 43" {
			p.t.Errorf("%v: got %d %s, logged %+v; want it from 43", claimed, got.status, got.body, last)
		}
		if got := p.post(p.gateway.url(linePath), `{"text":"claims"}`, claimed...); got.status != 401 || got.refusal.Code != "token.missing" {
			p.t.Errorf("%v and nobody logged in: got %d %s, want 401 token.missing", claimed, got.status, got.body)
		}
	}
}

// A page offers its token as a subprotocol, and one is taken, without which a
// browser would close the socket.
func (p *platform) checkSubprotocol() {
	p.t.Helper()
	token := p.issuer.token(p.t, "7", "방송자")
	conn, resp, err := websocket.Dial(p.t.Context(), "ws://"+p.gateway.address+"/v1/presenter", &websocket.DialOptions{
		Subprotocols: []string{"hanmadi", token}, HTTPHeader: http.Header{"Origin": {"http://" + p.gateway.address}}})
	if err != nil {
		p.t.Errorf("a link by subprotocol: %v", err)
		return
	}
	defer conn.CloseNow()
	if conn.Subprotocol() != "hanmadi" || strings.Contains(resp.Header.Get("Sec-WebSocket-Protocol"), token) {
		p.t.Errorf("the subprotocol that was taken: %q", resp.Header.Get("Sec-WebSocket-Protocol"))
	}
	_, data, err := conn.Read(p.t.Context())
	var welcome frame
	if err != nil || json.Unmarshal(data, &welcome) != nil || welcome.Type != "welcome" {
		p.t.Errorf("got %s %v, want a welcome", data, err)
	}
	// What the samples say of time-outs is made for this.
	if welcome.HeartbeatS != 25 {
		p.t.Errorf("a heartbeat every %d s; the samples end what is silent for three of 25 s", welcome.HeartbeatS)
	}
}

func (p *platform) checkOriginalLink() {
	p.t.Helper()
	conn, _, err := websocket.Dial(p.t.Context(), "ws://"+p.gateway.address+"/chatting", nil)
	if err != nil {
		p.t.Errorf("/chatting: %v", err)
		return
	}
	defer conn.CloseNow()
	start := `{"id":"start","token":"` + p.issuer.token(p.t, "7", "방송자") + `"}`
	if err := conn.Write(p.t.Context(), websocket.MessageText, []byte(start)); err != nil {
		p.t.Fatal(err)
	}
	p.awaitLinkSince("7")
	if got := p.post(p.gateway.url("/send/message"), `{"presenterIdx":7,"userType":"viewer","textMessage":"옛 앱"}`, "Cookie", "session=43"); got.status != 200 || got.body != "" {
		p.t.Errorf("/send/message: got %d %s, want 200 and nothing", got.status, got.body)
	}
	for {
		_, data, err := conn.Read(p.t.Context())
		if err != nil {
			p.t.Errorf("/chatting ended: %v", err)
			return
		}
		if strings.Contains(string(data), `"message":"옛 앱"`) {
			break
		}
	}
}

// awaitLinkSince waits until a room has a link.
func (p *platform) awaitLinkSince(room string) {
	p.t.Helper()
	eventually(p.t, "room "+room+" has a link", func() bool {
		var view struct{ Linked bool }
		return request(p.t, http.MethodGet, p.gateway.url("/v1/rooms/"+room), "", "", &view) == http.StatusOK && view.Linked
	})
}

// A refusal is hanmadi's own, not the gateway's.
func (p *platform) checkLimits() {
	p.t.Helper()
	got := p.post(p.gateway.url(linePath), `{"text":"`+strings.Repeat("가", 8<<10)+`"}`, "Cookie", "session=43")
	if got.status != http.StatusRequestEntityTooLarge || got.refusal.Code != "body.too_large" || got.header.Get("X-Request-Id") == "" {
		p.t.Errorf("a large body: got %d %s, want 413 body.too_large", got.status, got.body)
	}
}

// checkNothingKept looks for what must be stored nowhere.
func (p *platform) checkNothingKept() {
	p.t.Helper()
	written := p.hanmadi.out.String() + p.hanmadi.err.String()
	for _, name := range []string{"hanmadi.db", "hanmadi.db-wal"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(p.hanmadi.logPath()), name))
		if err != nil && !os.IsNotExist(err) {
			p.t.Fatal(err)
		}
		written += string(data)
	}
	for _, secret := range []string{"spy@example.com", gatewaySecret, signallingSecret} {
		if strings.Contains(written, secret) {
			p.t.Errorf("%q is kept in the log or was written to the program's own", secret)
		}
	}
	if !strings.Contains(written, "시청자 43") {
		p.t.Error("what was looked through is not the log")
	}
}
