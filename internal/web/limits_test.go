package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/moderate"
	"github.com/hanmadi/hanmadi/internal/token"
)

// limited has limits over the fixture's desk: 3 lines for a user. Times are
// long, so that nothing comes back while a test runs on a slow machine.
func limited(t *testing.T, change func(*Options)) *fixture {
	t.Helper()
	limits := moderate.NewLimits(moderate.Rates{User: moderate.Per(3, 3*time.Hour), Room: moderate.Per(100, time.Hour), Address: moderate.Per(100, time.Hour)})
	f := newFixture(t, func(o *Options) {
		o.Limits = limits
		o.Attempts = moderate.Per(5, 5*time.Hour)
		if change != nil {
			change(o)
		}
	})
	f.desk = chat.NewDesk(f.log, f.server.Hub, chat.DeskOptions{NewID: newID, Limits: limits})
	f.server.Desk = f.desk
	return f.onAir()
}

func (f *fixture) sayAs(user, text string, headers ...string) (*http.Response, []byte) {
	f.Helper()
	return f.call("POST", "/v1/rooms/7/messages", `{"text":"`+text+`"}`, append([]string{"Authorization", "Bearer " + user}, headers...)...)
}

func (f *fixture) wantQuota(what string, resp *http.Response, want string) {
	f.Helper()
	if got := resp.Header.Get("RateLimit"); got != want {
		f.Errorf("%s: RateLimit %q, want %q", what, got, want)
	}
	policy := `"user";q=3;w=10800`
	if want == "" {
		policy = ""
	}
	if got := resp.Header.Get("RateLimit-Policy"); got != policy {
		f.Errorf("%s: RateLimit-Policy %q, want %q", what, got, policy)
	}
}

func TestLinesAreLimitedAndSaySo(t *testing.T) {
	f := limited(t, nil)
	for i, want := range []string{`"user";r=2;t=3600`, `"user";r=1;t=3600`, `"user";r=0;t=3600`} {
		resp, body := f.sayAs("42", "줄")
		if resp.StatusCode != 201 {
			t.Fatalf("line %d: %d %s", i+1, resp.StatusCode, body)
		}
		f.wantQuota(fmt.Sprint("line ", i+1), resp, want)
	}
	resp, body := f.sayAs("42", "줄")
	p := f.wantProblem("the fourth", resp, body, chat.RateUser)
	f.wantQuota("the fourth", resp, `"user";r=0;t=3600`)
	if want := "메시지를 너무 빨리 보내고 있습니다. 1시간 후 다시 보내 주세요."; p.Detail != want || resp.Header.Get("Retry-After") != "3600" {
		t.Errorf("got %q after %s, want %q", p.Detail, resp.Header.Get("Retry-After"), want)
	}
	resp, _ = f.sayAs("43", "딴 사람")
	f.wantQuota("somebody else", resp, `"user";r=2;t=3600`)
	for range 10 {
		resp, body := f.sayAs("7", "방송자")
		if resp.StatusCode != 201 {
			t.Fatalf("the presenter: %d %s", resp.StatusCode, body)
		}
		f.wantQuota("the presenter", resp, "")
	}
}

// A wait of less than a millisecond is one all the same.
func TestShortWaitsAreAnnounced(t *testing.T) {
	f := newFixture(t, nil)
	rec := &response{header: http.Header{}}
	req, err := http.NewRequestWithContext(t.Context(), "POST", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.server.refuse(&recorder{ResponseWriter: rec, requestID: "R"}, req, &chat.Refusal{Code: chat.RateRoom, RetryAfter: time.Microsecond})
	var p problem
	if err := json.Unmarshal([]byte(rec.body.String()), &p); err != nil || p.RetryAfterMS != 1 || rec.header.Get("Retry-After") != "1" {
		t.Errorf("got %s after %s (%v), want 1 ms and 1 s", rec.body.String(), rec.header.Get("Retry-After"), err)
	}
}

// What is refused for another reason costs no line, and still says how many
// there are.
func TestRefusedLinesCostNothing(t *testing.T) {
	f := limited(t, nil)
	for name, c := range map[string]struct{ room, body string }{
		"empty": {"7", `{"text":""}`}, "not live": {"8", `{"text":"x"}`}, "not JSON": {"7", `{`}, "no such line": {"7", `{"text":"x","reply_to":99}`},
	} {
		resp, _ := f.call("POST", "/v1/rooms/"+c.room+"/messages", c.body, "Authorization", "Bearer 42")
		if resp.StatusCode < 400 {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
		f.wantQuota(name, resp, `"user";r=3`)
	}
	f.log.FailWith(func(string, []chat.Row) (bool, error) { return false, chat.ErrLogUnavailable })
	resp, body := f.sayAs("42", "안 될 줄")
	f.wantProblem("the log is away", resp, body, chat.LogUnavailable)
	f.wantQuota("the log is away", resp, `"user";r=3`)
	resp, _ = f.call("POST", "/v1/rooms/7/messages", `{"text":"x"}`)
	f.wantQuota("nobody in particular", resp, "")
}

// The same key costs one line, however often it is sent, and is answered when
// no line is left.
func TestRepeatedLineCostsNothing(t *testing.T) {
	f := limited(t, nil)
	_, first := f.sayAs("42", "한 번", "Idempotency-Key", "k")
	for i := range 10 {
		if resp, again := f.sayAs("42", "한 번", "Idempotency-Key", "k"); resp.StatusCode != 201 || string(again) != string(first) {
			t.Fatalf("repetition %d: %d %s, want %s", i, resp.StatusCode, again, first)
		}
	}
	f.sayAs("42", "둘")
	f.sayAs("42", "셋")
	resp, body := f.sayAs("42", "넷")
	f.wantProblem("none is left", resp, body, chat.RateUser)
	if resp, again := f.sayAs("42", "한 번", "Idempotency-Key", "k"); resp.StatusCode != 201 || string(again) != string(first) {
		t.Errorf("with none left: %d %s, want %s", resp.StatusCode, again, first)
	}
}

func TestKeysThatAreTaken(t *testing.T) {
	f := newFixture(t, nil).onAir()
	var all strings.Builder
	for c := byte('!'); c <= '~'; c++ {
		all.WriteByte(c)
	}
	for _, key := range []string{"k", strings.Repeat("k", 128), all.String(), "01JDZK0000000000000000000X", "K", "k,k"} {
		_, first := f.sayAs("42", "줄", "Idempotency-Key", key)
		resp, again := f.sayAs("42", "줄", "Idempotency-Key", key)
		if resp.StatusCode != 201 || string(again) != string(first) {
			t.Errorf("key %q: %d %s, want %s", key, resp.StatusCode, again, first)
		}
	}
	if rows, _ := f.log.After(t.Context(), "7", 2, 100); len(rows) != 6 {
		t.Errorf("6 keys have %d lines", len(rows))
	}
}

// unread is a body that must not be asked for.
type unread struct{ asked atomic.Bool }

func (u *unread) Read([]byte) (int, error) { u.asked.Store(true); return 0, io.EOF }

// serve calls the face directly, from an address of choice.
func (f *fixture) serve(method, path, address string, body io.Reader, headers ...string) (int, chat.Code) {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), method, path, body)
	if err != nil {
		f.Fatal(err)
	}
	req.RemoteAddr = address
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	rec := &response{header: http.Header{}}
	f.server.All().ServeHTTP(rec, req)
	var p problem
	_ = json.Unmarshal([]byte(rec.body.String()), &p) // an answer that is no problem has no code
	return rec.status, p.Code
}

// response is what a handler answered.
type response struct {
	header http.Header
	status int
	body   strings.Builder
}

func (r *response) Header() http.Header         { return r.header }
func (r *response) WriteHeader(status int)      { r.status = status }
func (r *response) Write(b []byte) (int, error) { return r.body.Write(b) }

func TestRefusalsArePutUpWithForAWhile(t *testing.T) {
	const say, here, there = "/v1/rooms/7/messages", "192.0.2.1:1000", "192.0.2.2:1000"
	for name, c := range map[string]struct {
		path, body string
		headers    []string
		first      int // the status of each refusal
	}{
		"bad tokens":         {say, `{"text":"x"}`, []string{"token", "!"}, 401},
		"no token":           {say, `{"text":"x"}`, nil, 401},
		"empty lines":        {say, `{"text":""}`, []string{"token", "42"}, 400},
		"rooms not live":     {"/v1/rooms/8/messages", `{"text":"x"}`, []string{"token", "42"}, 410},
		"asking after them":  {"/v1/rooms/7/me", "", []string{"token", "!"}, 401},
		"links without any":  {"/v1/presenter", "", nil, 426},
		"the original's":     {"/send/message", `{"presenterIdx":8,"textMessage":"x"}`, []string{"token", "42"}, 400},
		"its missing number": {"/send/message", `{"textMessage":"x"}`, []string{"token", "42"}, 400},
		"its bad tokens":     {"/send/message", `{"presenterIdx":7,"textMessage":"x","token":"!"}`, nil, 400},
	} {
		f := limited(t, original)
		method := "POST"
		if c.body == "" {
			method = "GET"
		}
		for i := range 5 {
			if got, code := f.serve(method, c.path, here, strings.NewReader(c.body), c.headers...); got != c.first || code == chat.RateRequests {
				t.Fatalf("%s: refusal %d is %d %s, want %d", name, i+1, got, code, c.first)
			}
		}
		for address, want := range map[string]bool{here: true, "192.0.2.1:9": true, there: false} {
			body := &unread{}
			status, code := f.serve("POST", say, address, body, "token", "43")
			if refused := status == 429 && code == chat.RateRequests; refused != want || body.asked.Load() == want {
				t.Errorf("%s: then a good user from %s: %d %s, body read %t; refused unread %t", name, address, status, code, body.asked.Load(), want)
			}
		}
		if status, _ := f.serve("GET", "/v1/rooms/7/events", here, nil); status != 200 {
			t.Errorf("%s: then a reader: %d", name, status)
		}
	}
}

// A user's refusals follow them to other addresses.
func TestRefusalsCountPerUser(t *testing.T) {
	f := limited(t, nil)
	for i := range 5 {
		f.serve("POST", "/v1/rooms/7/messages", fmt.Sprintf("192.0.2.%d:1000", i), strings.NewReader(`{"text":""}`), "token", "42")
	}
	body := &unread{}
	if status, code := f.serve("POST", "/v1/rooms/7/messages", "192.0.2.99:1000", body, "token", "42"); status != 429 || code != chat.RateRequests || body.asked.Load() {
		t.Errorf("from elsewhere: %d %s, body read %t; want 429 rate.requests, unread", status, code, body.asked.Load())
	}
	if status, _ := f.serve("POST", "/v1/rooms/7/messages", "192.0.2.1:1000", strings.NewReader(`{"text":"x"}`), "token", "43"); status != 201 {
		t.Errorf("somebody else: %d", status)
	}
	// Being told so again and again is no further refusal of the address.
	for range 20 {
		f.serve("POST", "/v1/rooms/7/messages", "192.0.2.1:1000", strings.NewReader(`{"text":"x"}`), "token", "42")
	}
	if status, _ := f.serve("POST", "/v1/rooms/7/messages", "192.0.2.1:1000", strings.NewReader(`{"text":"x"}`), "token", "43"); status != 201 {
		t.Errorf("somebody else beside a user who is not listened to: %d", status)
	}
}

// Our own failures are nobody's refusals, and neither is what is well.
func TestWhatIsNoRefusalDoesNotCount(t *testing.T) {
	f := limited(t, nil)
	f.log.FailWith(func(string, []chat.Row) (bool, error) { return false, chat.ErrLogUnavailable })
	for range 20 {
		if status, code := f.serve("POST", "/v1/rooms/7/messages", "192.0.2.1:1000", strings.NewReader(`{"text":"x"}`), "token", "42"); status != 503 {
			t.Fatalf("got %d %s, want 503", status, code)
		}
	}
	f.log.FailWith(nil)
	for range 20 {
		if status, code := f.serve("POST", "/v1/rooms/7/messages", "192.0.2.1:1000", strings.NewReader(`{"text":"x"}`), "token", "7"); status != 201 {
			t.Fatalf("got %d %s, want 201", status, code)
		}
	}
}

// Behind a gateway it is the client that is counted, and nobody where the
// gateway names nobody.
func TestRefusalsBehindAGateway(t *testing.T) {
	f := limited(t, func(o *Options) {
		o.Gateway = token.Gateway{From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Secret: []byte(gatewaySecret), Header: "X-Gateway-Secret"}
	})
	refused := func(headers ...string) bool {
		status, _ := f.serve("POST", "/v1/rooms/7/messages", "10.0.0.1:1000", strings.NewReader(`{"text":"x"}`), headers...)
		return status == 429
	}
	for range 20 {
		if refused("token", "!") {
			t.Fatal("the gateway itself is refused")
		}
	}
	for range 5 {
		refused("token", "!", "X-Forwarded-For", "192.0.2.1")
	}
	if !refused("token", "42", "X-Forwarded-For", "192.0.2.1") || refused("token", "42", "X-Forwarded-For", "192.0.2.2") {
		t.Error("behind the gateway the client's address counts, and only that")
	}
}

// Links that are refused after the upgrade count too, whenever it is known.
func TestRefusedLinksCount(t *testing.T) {
	f := limited(t, original)
	for i, path := range []string{"/v1/presenter", "/v1/presenter", "/chatting", "/v1/presenter", "/chatting"} {
		first := map[string]string{"/v1/presenter": `{"type":"start","token":"!"}`, "/chatting": `{"id":"start","token":"!"}`}[path]
		header := http.Header{}
		if i == 0 { // one is known from its header
			header.Set("token", "!")
			first = ""
		}
		conn := f.dial(path, header, first)
		for !strings.HasPrefix(read(t, conn), "closed") { // the error frame, and then the close
		}
	}
	if resp, body := f.sayAs("42", "x"); resp.StatusCode != 429 {
		t.Errorf("then a line from there: %d %s, want 429", resp.StatusCode, body)
	}
	resp, body := f.call("GET", "/v1/presenter", "", "token", "7", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	f.wantProblem("then a link from there, before the upgrade", resp, body, chat.RateRequests)
}

func (f *fixture) askMe(user string, headers ...string) (meView, *http.Response) {
	f.Helper()
	resp, body := f.call("GET", "/v1/rooms/7/me", "", append([]string{"token", user}, headers...)...)
	var me meView
	if err := json.Unmarshal(body, &me); err != nil || resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "no-store" {
		f.Fatalf("%d %s %v", resp.StatusCode, body, err)
	}
	return me, resp
}

func TestMe(t *testing.T) {
	f := limited(t, nil)
	me, resp := f.askMe("42")
	expires, err := time.Parse(chat.TimeFormat, me.TokenExpiresAt)
	if left := time.Until(expires); err != nil || left < 50*time.Minute || left > 70*time.Minute {
		t.Errorf("token_expires_at %q", me.TokenExpiresAt)
	}
	me.TokenExpiresAt = ""
	if want := (meView{User: "42", Role: "viewer", CanSend: true, MaxLength: 500, Remaining: 3}); me != want {
		t.Errorf("got %+v, want %+v", me, want)
	}
	f.wantQuota("me", resp, `"user";r=3`)
	if me, resp := f.askMe("7"); !me.CanSend || me.Role != "presenter" || me.Remaining != 3 || resp.Header.Get("RateLimit") != "" {
		t.Errorf("the presenter: %+v %v", me, resp.Header)
	}
	resp, body := f.call("GET", "/v1/rooms/7/me", "")
	f.wantProblem("nobody", resp, body, chat.TokenMissing)
	resp, body = f.call("GET", "/v1/rooms/a%20b/me", "", "token", "42")
	f.wantProblem("no room", resp, body, chat.RoomInvalid)
}

// What …/me says is what a line is told, and asking costs nothing.
func TestMeAgreesWithALine(t *testing.T) {
	f := limited(t, nil)
	check := func(when string, english bool) meView {
		t.Helper()
		lang := []string{"Accept-Language", "ko"}
		if english {
			lang[1] = "en"
		}
		var me meView
		for range 5 {
			me, _ = f.askMe("42", lang...)
		}
		resp, body := f.sayAs("42", "줄", lang...)
		var p problem
		_ = json.Unmarshal(body, &p) // a receipt has no code
		if me.CanSend != (resp.StatusCode == 201) || me.Code != p.Code || me.Detail != p.Detail {
			t.Errorf("%s: me says %+v, a line is told %d %s", when, me, resp.StatusCode, body)
		}
		return me
	}
	for _, left := range []int{3, 2, 1} {
		if me := check("a line", false); me.Remaining != left || !me.CanSend {
			t.Errorf("%d are left: %+v", left, me)
		}
	}
	me := check("used up", true)
	next, err := time.Parse(chat.TimeFormat, me.NextAt)
	if wait := time.Until(next); err != nil || wait < 50*time.Minute || wait > 70*time.Minute || me.Remaining != 0 || me.Code != chat.RateUser {
		t.Errorf("used up: %+v", me)
	}
	if _, err := f.desk.EndBroadcast(t.Context(), "7", chat.User{ID: "op"}, "operator", nil); err != nil {
		t.Fatal(err)
	}
	if me := check("the broadcast has ended", false); me.Code != chat.BroadcastEndedCode || me.NextAt != "" {
		t.Errorf("ended: %+v", me)
	}
}

func TestLimitsAreInTheMetrics(t *testing.T) {
	f := limited(t, nil)
	f.sayAs("42", "줄")
	f.sayAs("43", "줄")
	f.sayAs("42", "")
	_, body := f.call("GET", "/metrics", "")
	for _, want := range []string{`hanmadi_limit_buckets{of="user"} 2`, `hanmadi_limit_buckets{of="room"} 1`, `hanmadi_limit_buckets{of="address"} 1`,
		`hanmadi_limit_buckets{of="user_refusals"} 1`, `hanmadi_limit_buckets{of="address_refusals"} 1`, "hanmadi_limit_buckets_dropped_total 0"} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestQuotaAllocatesLittle(t *testing.T) {
	s := &Server{Options: Options{Limits: moderate.NewLimits(moderate.Rates{User: moderate.Per(20, 30*time.Second), Room: moderate.Per(1, 1), Address: moderate.Per(1, 1)})}}
	s.policy = quotaPolicy(s.Limits.UserRate())
	h, now := http.Header{}, time.Now()
	if got := testing.AllocsPerRun(100, func() { s.setQuota(h, chat.User{ID: "42"}, "7", now) }); got > 2 {
		t.Errorf("%v allocations, want the header's value and its slice", got)
	}
	if got := h.Get("RateLimit-Policy"); got != `"user";q=20;w=30` {
		t.Errorf("policy: got %s", got)
	}
}
