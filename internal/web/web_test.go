package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
	"github.com/hanmadi/hanmadi/internal/live"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/spec/spectest"
)

// fixture is the whole face over a log in memory. Tokens are the users' ids;
// "operator" is the platform.
type fixture struct {
	*testing.T
	log    *logtest.Memory
	desk   *chat.Desk
	server *Server
	http   *httptest.Server
	logged *bytes.Buffer
	check  error
}

var ids atomic.Int64

func newID() string { return "ID" + strconv.FormatInt(ids.Add(1), 10) }

func verify(token string) (chat.User, error) {
	switch {
	case token == "operator":
		return chat.User{ID: "op", Role: chat.RoleOperator}, nil
	case token == "expired":
		return chat.User{}, chat.Refuse(chat.TokenExpired)
	case !chat.ValidID(token):
		return chat.User{}, chat.Refuse(chat.TokenInvalid)
	}
	return chat.User{ID: token, Nickname: "이름" + token, Expires: time.Now().Add(time.Hour)}, nil
}

func newFixture(t *testing.T, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{T: t, log: logtest.NewMemory("LOG"), logged: &bytes.Buffer{}}
	logger := slog.New(slog.NewJSONHandler(f.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	reg := prometheus.NewRegistry()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	hub := live.NewHub(live.Options{Log: f.log, Key: key, Metrics: live.NewMetrics(reg), Logger: slog.New(slog.DiscardHandler),
		NewID: newID, Verify: verify, Take: func(ctx context.Context, u chat.User, s string) (chat.State, error) {
			return f.desk.TakeLink(ctx, u, s)
		}, State: func(ctx context.Context, room string) (chat.State, error) { return f.desk.State(ctx, room) }})
	f.desk = chat.NewDesk(f.log, hub, chat.DeskOptions{NewID: newID})
	o := Options{Log: f.log, Desk: f.desk, Hub: hub, Keys: seal.NewKeySet(key.Public()),
		Verify: verify, Check: func(context.Context) error { return f.check }, NewID: newID, Origins: []string{"https://stage.example"},
		Metrics: NewMetrics(reg), Scrape: promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), Logger: logger}
	if change != nil {
		change(&o)
	}
	f.server = New(o)
	f.server.SetState(StateReady)
	f.http = httptest.NewServer(spectest.Handler(t, f.server.All()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		hub.Drain(ctx, 0)
		f.http.Close()
	})
	return f
}

// onAir opens a broadcast in the room 7.
func (f *fixture) onAir() *fixture {
	f.Helper()
	if _, err := f.desk.TakeLink(f.Context(), chat.User{ID: "7"}, "S"); err != nil {
		f.Fatal(err)
	}
	return f
}

// call makes a request; headers are pairs.
func (f *fixture) call(method, path, body string, headers ...string) (*http.Response, []byte) {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), method, f.http.URL+path, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := f.http.Client().Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	return resp, data
}

func (f *fixture) say(text string) (*http.Response, []byte) {
	f.Helper()
	body, _ := json.Marshal(map[string]string{"text": text})
	return f.call("POST", "/v1/rooms/7/messages", string(body), "Authorization", "Bearer 42")
}

// unfilled is a number that a sentence should have named.
var unfilled = regexp.MustCompile(`\{\w+\}`)

// wantProblem checks everything that every refusal has.
func (f *fixture) wantProblem(what string, resp *http.Response, body []byte, code chat.Code) problem {
	f.Helper()
	var p problem
	if err := json.Unmarshal(body, &p); err != nil {
		f.Fatalf("%s: %d %s: %v", what, resp.StatusCode, body, err)
	}
	e := chat.Lookup(code)
	if p.Code != code || resp.StatusCode != e.Status || p.Status != e.Status {
		f.Errorf("%s: got %d %s, want %d %s", what, resp.StatusCode, p.Code, e.Status, code)
	}
	if p.Type != "/problems/"+string(code) || p.Title != e.Title || p.Detail == "" || unfilled.MatchString(p.Detail) || p.RequestID == "" {
		f.Errorf("%s: incomplete: %s", what, body)
	}
	h := resp.Header
	if h.Get("Content-Type") != "application/problem+json" || h.Get("Cache-Control") != "no-store" || h.Get("Content-Language") == "" ||
		!strings.Contains(strings.Join(h.Values("Vary"), ","), "Accept-Language") || h.Get("X-Request-Id") != p.RequestID {
		f.Errorf("%s: headers %v", what, h)
	}
	if resp.StatusCode == 401 && h.Get("WWW-Authenticate") == "" {
		f.Errorf("%s: no WWW-Authenticate", what)
	}
	if (p.RetryAfterMS > 0) != (h.Get("Retry-After") != "") || e.Waits() != (p.RetryAfterMS > 0) {
		f.Errorf("%s: retry %s, retry_after_ms %d, Retry-After %q", what, e.Retry, p.RetryAfterMS, h.Get("Retry-After"))
	}
	return p
}

func TestSay(t *testing.T) {
	f := newFixture(t, nil).onAir()
	resp, body := f.say("  안녕\n하세요 <b> ")
	var got sent
	if err := json.Unmarshal(body, &got); err != nil || resp.StatusCode != 201 {
		t.Fatalf("%d %s %v", resp.StatusCode, body, err)
	}
	if got.Text != "안녕 하세요 <b>" || got.Seq != 3 || got.ID == "" || got.At == "" || got.Delivery != "queued" {
		t.Errorf("got %+v", got)
	}
	if !bytes.Contains(body, []byte("<b>")) {
		t.Errorf("text is escaped for HTML: %s", body)
	}
}

func TestSayRefusals(t *testing.T) {
	f := newFixture(t, nil).onAir()
	const ok = `{"text":"x"}`
	auth := []string{"Authorization", "Bearer 42"}
	for _, c := range []struct {
		name, room, body string
		headers          []string
		want             chat.Code
	}{
		{"no token", "7", ok, nil, chat.TokenMissing},
		{"bad token", "7", ok, []string{"Authorization", "Bearer !"}, chat.TokenInvalid},
		{"expired token", "7", ok, []string{"token", "expired"}, chat.TokenExpired},
		{"two tokens", "7", ok, []string{"Authorization", "Bearer 42", "token", "43"}, chat.TokenMismatch},
		{"not live", "8", ok, auth, chat.BroadcastEndedCode},
		{"bad room", "-7", ok, auth, chat.RoomInvalid},
		{"empty body", "7", "", append([]string{"Content-Type", "application/json"}, auth...), chat.BodyInvalid},
		{"not JSON", "7", "text=x", auth, chat.BodyInvalid},
		{"an array", "7", `["x"]`, auth, chat.BodyInvalid},
		{"text is a number", "7", `{"text":1}`, auth, chat.BodyInvalid},
		{"text twice", "7", `{"text":"a","text":"b"}`, auth, chat.BodyInvalid},
		{"lone surrogate", "7", `{"text":"\ud800"}`, auth, chat.BodyInvalid},
		{"invalid UTF-8", "7", "{\"text\":\"\xff\"}", auth, chat.BodyInvalid},
		{"trailing data", "7", ok + ok, auth, chat.BodyInvalid},
		{"negative reply", "7", `{"text":"x","reply_to":-1}`, auth, chat.BodyInvalid},
		{"reply to nothing", "7", `{"text":"x","reply_to":99}`, auth, chat.ReplyNotFound},
		{"no text", "7", `{}`, auth, chat.MessageEmpty},
		{"only invisible", "7", `{"text":"\u3164\u115f"}`, auth, chat.MessageEmpty},
		{"too long", "7", `{"text":"` + strings.Repeat("가", 501) + `"}`, auth, chat.MessageTooLong},
		{"too many marks", "7", `{"text":"a` + strings.Repeat("\u0327", 9) + `"}`, auth, chat.MessageBadCharacters},
		{"too large", "7", `{"text":"` + strings.Repeat("a", MaxBody) + `"}`, auth, chat.BodyTooLarge},
		{"another content type", "7", ok, append([]string{"Content-Type", "text/plain"}, auth...), chat.BodyType},
		{"key with a space", "7", ok, append([]string{"Idempotency-Key", "a b"}, auth...), chat.IdempotencyInvalid},
		{"two keys", "7", ok, append([]string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, auth...), chat.IdempotencyInvalid},
		{"long key", "7", ok, append([]string{"Idempotency-Key", strings.Repeat("k", 129)}, auth...), chat.IdempotencyInvalid},
	} {
		headers := c.headers
		if c.name == "another content type" {
			req, _ := http.NewRequest("POST", f.http.URL+"/v1/rooms/7/messages", strings.NewReader(ok))
			req.Header.Set("Content-Type", "text/plain")
			req.Header.Set("Authorization", "Bearer 42")
			resp, err := f.http.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			f.wantProblem(c.name, resp, body, c.want)
			continue
		}
		resp, body := f.call("POST", "/v1/rooms/"+c.room+"/messages", c.body, headers...)
		f.wantProblem(c.name, resp, body, c.want)
	}
	if rows, _ := f.log.After(t.Context(), "7", 2, 10); len(rows) != 0 {
		t.Errorf("refused lines were logged: %+v", rows)
	}
}

func TestDetailIsInTheReadersLanguage(t *testing.T) {
	f := newFixture(t, nil)
	for accept, want := range map[string]string{"": "ko", "en": "en", "en-GB,ko;q=0.5": "en", "ko,en": "ko", "ja": "ko", "fr, en;q=0.1": "en",
		"!!!": "ko", strings.Repeat("en,", 2000): "ko", "*": "ko"} {
		resp, body := f.call("POST", "/v1/rooms/7/messages", `{"text":"x"}`, "Authorization", "Bearer 42", "Accept-Language", accept)
		p := f.wantProblem(accept, resp, body, chat.BroadcastEndedCode)
		if got := resp.Header.Get("Content-Language"); got != want {
			t.Errorf("Accept-Language %.20q: got %s, want %s", accept, got, want)
		}
		if want == "ko" && p.Detail != "방송 종료되었습니다" {
			t.Errorf("Korean detail: %q", p.Detail)
		}
	}
}

func TestSameKeyOverHTTP(t *testing.T) {
	f := newFixture(t, nil).onAir()
	post := func(text string) (*http.Response, []byte) {
		return f.call("POST", "/v1/rooms/7/messages", `{"text":"`+text+`"}`, "Authorization", "Bearer 42", "Idempotency-Key", "k1")
	}
	_, first := post("한 번")
	if resp, again := post("한 번"); resp.StatusCode != 201 || !bytes.Equal(first, again) {
		t.Errorf("again: %s, want %s", again, first)
	}
	resp, body := post("다른 말")
	f.wantProblem("other words", resp, body, chat.IdempotencyMismatch)
}

func TestFailuresAreLoggedWholeAndShownAsNothing(t *testing.T) {
	f := newFixture(t, nil).onAir()
	f.log.FailWith(func(string, []chat.Row) (bool, error) {
		return false, fmt.Errorf("%w: secret detail of the disk", chat.ErrLogUnavailable)
	})
	resp, body := f.say("안 될 줄")
	f.wantProblem("log away", resp, body, chat.LogUnavailable)
	f.log.FailWith(func(string, []chat.Row) (bool, error) { panic("secret detail of a bug") })
	req := httptest.NewRequest("GET", "/x", nil)
	rec := &recorder{ResponseWriter: httptest.NewRecorder(), requestID: "R"}
	f.server.refuse(rec, req, f.server.guarded(func(http.ResponseWriter, *http.Request) error { panic("secret detail of a bug") }, rec, req))
	if rec.status != 500 {
		t.Errorf("panic: status %d", rec.status)
	}
	if bytes.Contains(body, []byte("secret")) {
		t.Errorf("shown: %s", body)
	}
	for _, want := range []string{"secret detail of the disk", "secret detail of a bug", resp.Header.Get("X-Request-Id")} {
		if !strings.Contains(f.logged.String(), want) {
			t.Errorf("our log lacks %q", want)
		}
	}
	if strings.Contains(f.logged.String(), "안 될 줄") {
		t.Error("our log holds a line's text")
	}
}

func TestRequestIDs(t *testing.T) {
	f := newFixture(t, nil)
	trace := "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, c := range []struct{ header, value, want string }{
		{"X-Request-Id", "abc-1", "abc-1"},
		{"X-Request-Id", "with space", ""},
		{"X-Request-Id", strings.Repeat("x", 129), ""},
		{"Traceparent", "00-" + trace + "-00f067aa0ba902b7-01", trace},
		{"Traceparent", "00-XYZ-00-01", ""},
	} {
		resp, _ := f.call("GET", "/livez", "", c.header, c.value)
		got := resp.Header.Get("X-Request-Id")
		if c.want != "" && got != c.want || c.want == "" && !strings.HasPrefix(got, "ID") {
			t.Errorf("%s %.20q: got %q, want %q or one of ours", c.header, c.value, got, c.want)
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	f := newFixture(t, nil)
	resp, body := f.call("GET", "/nothing", "")
	f.wantProblem("unknown path", resp, body, chat.NotFound)
	resp, body = f.call("DELETE", "/v1/rooms/7/messages", "")
	f.wantProblem("unknown method", resp, body, chat.MethodNotAllowed)
	if got := resp.Header.Get("Allow"); got != "POST" {
		t.Errorf("Allow: got %q, want POST", got)
	}
}

func TestProblemPages(t *testing.T) {
	f := newFixture(t, nil)
	for code, e := range chat.Catalogue() {
		resp, body := f.call("GET", "/problems/"+string(code), "")
		if resp.StatusCode != 200 || !bytes.Contains(body, []byte(strings.Split(e.Korean, "{")[0])) || !bytes.Contains(body, []byte(code)) {
			t.Errorf("%s: %d %s", code, resp.StatusCode, body)
		}
	}
	resp, body := f.call("GET", "/problems/no.such", "")
	f.wantProblem("unknown code", resp, body, chat.NotFound)
}

func TestReadiness(t *testing.T) {
	f := newFixture(t, nil)
	get := func() (int, string) {
		resp, body := f.call("GET", "/readyz", "")
		return resp.StatusCode, strings.TrimSpace(string(body))
	}
	for _, c := range []struct {
		name  string
		state State
		check error
		code  int
		body  string
	}{
		{"ready", StateReady, nil, 200, `{"status":"ready","degraded":[]}`},
		{"starting", StateStarting, nil, 503, `{"status":"starting","degraded":[]}`},
		{"draining", StateDraining, nil, 503, `{"status":"draining","degraded":[]}`},
		{"our own disk fails", StateReady, errors.New("full"), 503, `{"status":"failing","degraded":["log"]}`},
	} {
		f.server.SetState(c.state)
		f.check = c.check
		if code, body := get(); code != c.code || body != c.body {
			t.Errorf("%s: got %d %s, want %d %s", c.name, code, body, c.code, c.body)
		}
	}
	if resp, _ := f.call("GET", "/livez", ""); resp.StatusCode != 200 {
		t.Errorf("livez while draining: %d", resp.StatusCode)
	}
}

func TestMetricsAreServed(t *testing.T) {
	f := newFixture(t, nil).onAir()
	f.say("하나")
	f.call("POST", "/v1/rooms/8/messages", `{"text":"x"}`, "Authorization", "Bearer 42")
	_, body := f.call("GET", "/metrics", "")
	for _, want := range []string{
		`hanmadi_http_requests_total{route="POST /v1/rooms/{room}/messages",status="201"} 1`,
		`hanmadi_http_requests_total{route="POST /v1/rooms/{room}/messages",status="410"} 1`,
		`hanmadi_refusals_total{code="broadcast.ended"} 1`,
		`hanmadi_refusals_total{code="token.missing"} 0`,
		`hanmadi_links 0`, `hanmadi_session_lag_seconds 0`, `hanmadi_link_closes_total{reason="replaced"} 0`,
	} {
		if !bytes.Contains(body, []byte(want+"\n")) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestForeignHosts(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Hosts = []string{"127.0.0.1:8080"} })
	resp, body := f.call("GET", "/v1/rooms/7", "", "Host", "evil.example:8080")
	f.wantProblem("a name that was pointed here", resp, body, chat.HostForeign)
	if resp, _ := f.call("GET", "/v1/rooms/7", "", "Host", "127.0.0.1:8080"); resp.StatusCode != 200 {
		t.Errorf("our own name: %d", resp.StatusCode)
	}
}

func TestFacesAreApart(t *testing.T) {
	f := newFixture(t, nil)
	for face, want := range map[string]map[string]int{
		"public": {"/v1/rooms/7": 200, "/.well-known/jwks.json": 200, "/livez": 404, "/readyz": 404, "/metrics": 404},
		"admin":  {"/v1/rooms/7": 404, "/.well-known/jwks.json": 404, "/livez": 200, "/readyz": 200, "/metrics": 200},
	} {
		handler := spectest.Handler(t, map[string]http.Handler{"public": f.server.Public(), "admin": f.server.Admin()}[face])
		for path, code := range want {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code != code {
				t.Errorf("%s %s: got %d, want %d", face, path, w.Code, code)
			}
		}
	}
}

func TestUpgradeOfALink(t *testing.T) {
	f := newFixture(t, nil)
	resp, body := f.call("GET", "/v1/presenter", "")
	f.wantProblem("no upgrade", resp, body, chat.UpgradeRequired)
	resp, body = f.call("GET", "/v1/presenter", "", "Origin", "https://evil.example")
	f.wantProblem("another origin", resp, body, chat.OriginForeign)
	resp, body = f.call("GET", "/v1/presenter", "", "Origin", "https://stage.example", "Origin", "https://stage.example")
	f.wantProblem("two origins", resp, body, chat.OriginForeign)

	for _, c := range []struct {
		name, query, origin, token string
		wantStatus                 int
		wantFrame                  string
	}{
		{"header token", "", "https://stage.example", "7", 101, `"type":"welcome"`},
		{"with a cursor", "?after=1", "", "7", 101, `"type":"welcome"`},
		{"cursor is no number", "?after=x", "", "7", 400, ""},
		{"bad token is told after the upgrade", "", "", "!", 101, `"code":"token.invalid"`},
		{"origin in another case", "", "HTTPS://Stage.Example", "7", 101, `"type":"welcome"`},
		{"null origin", "", "null", "7", 403, ""},
	} {
		header := http.Header{"Token": {c.token}}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		conn, resp, err := websocket.Dial(t.Context(), f.http.URL+"/v1/presenter"+c.query, &websocket.DialOptions{HTTPHeader: header})
		if resp == nil || resp.StatusCode != c.wantStatus {
			t.Errorf("%s: got %v %v, want %d", c.name, resp, err, c.wantStatus)
		}
		if err != nil {
			continue
		}
		_, data, err := conn.Read(t.Context())
		if err != nil || !bytes.Contains(data, []byte(c.wantFrame)) {
			t.Errorf("%s: first frame %s %v, want %s", c.name, data, err, c.wantFrame)
		}
		spectest.Frame(t, "/v1/presenter", spectest.Server, data)
		conn.CloseNow()
	}
}

func TestKeysAreServed(t *testing.T) {
	f := newFixture(t, nil)
	resp, body := f.call("GET", "/.well-known/jwks.json", "")
	keys, err := seal.ParseKeySet(body)
	if err != nil || resp.Header.Get("Content-Type") != "application/jwk-set+json" || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%v %v %s", keys, err, body)
	}
}
