package spectest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// hearing notes what a test would have failed with.
type hearing struct {
	testing.TB
	said []string
}

func (h *hearing) Helper() {}

func (h *hearing) Errorf(format string, args ...any) {
	h.said = append(h.said, fmt.Sprintf(format, args...))
}

// lie is an exchange that a server may have; the zero value is a true one.
type lie struct {
	name, want string // want is a part of what is said of it; "" for nothing
	route      string
	status     int
	drop, add  string // headers
	kind, body string // of the answer
	asked      string // the request's body
}

const (
	sent    = `{"id":"I","seq":1,"at":"2026-11-22T10:00:00.123Z","text":"안녕","delivery":"linked"}`
	refused = `{"type":"/problems/room.invalid","title":"Room is not valid","status":400,"detail":"방 번호를 읽을 수 없습니다.","code":"room.invalid","request_id":"R"}`
	tooLong = `{"type":"/problems/message.too_long","title":"Message is too long","status":422,"detail":"…","code":"message.too_long","request_id":"R","params":{"max":500,"length":612}}`
	gone    = `{"type":"/problems/presenter.disconnected","title":"Presenter is disconnected","status":503,"detail":"…","code":"presenter.disconnected","request_id":"R","retry_after_ms":5001}`
)

var lies = []lie{
	{name: "a true answer", status: 201, body: sent},
	{name: "a true refusal", status: 400, body: refused},
	{name: "true params", status: 422, body: tooLong},
	{name: "a true time to wait", status: 503, add: "Retry-After: 6", body: gone},

	{name: "another route", want: "is not documented", route: "POST /v2/messages", status: 201, body: sent},
	{name: "another status", want: "status is not documented", status: 202, body: sent},
	{name: "another type", want: "type text/html is not documented", status: 201, kind: "text/html", body: sent},
	{name: "no body", want: "EOF", status: 201},
	{name: "an unknown member", want: "additional properties 'staff'", status: 201, body: strings.Replace(sent, `{`, `{"staff":1,`, 1)},
	{name: "a member that is missing", want: "missing property 'at'", status: 201, body: strings.Replace(sent, `"at"`, `"AT"`, 1)},
	{name: "a time without decimals", want: "does not match", status: 201, body: strings.Replace(sent, ".123Z", "Z", 1)},
	{name: "an unknown header", want: "header X-Staff is not documented", status: 201, add: "X-Staff: 1", body: sent},
	{name: "a header that is missing", want: "header X-Request-Id is missing", status: 201, drop: "X-Request-Id", body: sent},
	{name: "another header of all answers", want: "header X-Content-Type-Options", status: 201, add: "X-Content-Type-Options: sniff", body: sent},
	{name: "a header with another value", want: "header Cache-Control", status: 201, add: "Cache-Control: public", body: sent},

	{name: "a code of no catalogue", want: "not in the catalogue", status: 400, body: strings.ReplaceAll(refused, "room.invalid", "room.bad")},
	{name: "a code of another call", want: "not among the x-refusals", status: 403, body: `{"type":"/problems/forbidden","title":"Not allowed","status":403,"detail":"…","code":"forbidden","request_id":"R"}`},
	{name: "another status than the code's", want: "differ from the catalogue", status: 410, body: refused},
	{name: "params that the code has not", want: "carries the params [max]", status: 400, body: strings.Replace(refused, `}`, `,"params":{"max":1}}`, 1)},
	{name: "params that are missing", want: "carries the params [length]", status: 422, body: strings.Replace(tooLong, `"max":500,`, "", 1)},
	{name: "seconds rounded down", want: "rounded up", status: 503, add: "Retry-After: 5", body: gone},
	{name: "no time to wait", want: "tells a time to wait: false", status: 503, add: "Retry-After: 6", body: strings.Replace(gone, `,"retry_after_ms":5001`, "", 1)},
	{name: "a challenge that is missing", want: "Www-Authenticate is missing", status: 401, body: `{"type":"/problems/token.missing","title":"Token is missing","status":401,"detail":"…","code":"token.missing","request_id":"R"}`},

	{name: "more was taken than is documented", want: "request", status: 201, body: sent, asked: `{"text":1}`},
}

func TestStreamsTellLies(t *testing.T) {
	const skipped = `data: {"type":"skipped","to":5}`
	for stream, want := range map[string]string{
		"retry: 3000\nid: 1\n\n:\n\nid: 5\nevent: skipped\n" + skipped + "\n\nid: 6\nevent: ev": "",
		"id: 5\nevent: skipped\ndata: {\"type\":\"skipped\"}\n\n":                               "missing property 'to'",
		"id: 5\nevent: events\n" + skipped + "\n\n":                                             "a message skipped is called events",
		"id: 5\nevent: pong\ndata: pong\n\n":                                                    "no such message",
	} {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /v1/rooms/{room}/events", func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("X-Request-Id", "R")
			h.Set("Cache-Control", "no-store")
			h.Set("Vary", "Accept")
			h.Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte(stream))
		})
		heard := &hearing{TB: t}
		Handler(heard, mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/rooms/7/events", nil))
		if got := strings.Join(heard.said, "\n"); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want it to say %q", stream, got, want)
		}
	}
}

func (l lie) tell(w http.ResponseWriter, r *http.Request) {
	_, _ = r.Body.Read(make([]byte, 1000))
	h := w.Header()
	h.Set("X-Request-Id", "R")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	if l.status >= 400 {
		h.Set("Content-Type", "application/problem+json")
		h.Set("Content-Language", "ko")
		h.Set("Vary", "Accept-Language")
	}
	if l.kind != "" {
		h.Set("Content-Type", l.kind)
	}
	if name, value, ok := strings.Cut(l.add, ": "); ok {
		h.Set(name, value)
	}
	h.Del(l.drop)
	w.WriteHeader(l.status)
	_, _ = w.Write([]byte(l.body))
}

func TestHandlerTellsLies(t *testing.T) {
	for _, l := range lies {
		route := l.route
		if route == "" {
			route = "POST /v1/rooms/{room}/messages"
		}
		mux := http.NewServeMux()
		mux.HandleFunc(route, l.tell)
		asked := l.asked
		if asked == "" {
			asked = `{"text":"안녕"}`
		}
		r := httptest.NewRequest("POST", strings.Replace(strings.TrimPrefix(route, "POST "), "{room}", "7", 1), strings.NewReader(asked))
		r.Header.Set("Content-Type", "application/json")
		heard := &hearing{TB: t}
		Handler(heard, mux).ServeHTTP(httptest.NewRecorder(), r)
		switch got := strings.Join(heard.said, "\n"); {
		case l.want == "" && got != "":
			t.Errorf("%s: %s", l.name, got)
		case l.want != "" && !strings.Contains(got, l.want):
			t.Errorf("%s: got %q, want it to say %q", l.name, got, l.want)
		}
	}
}

func TestFrameTellsLies(t *testing.T) {
	event := `{\"seq\":1,\"kind\":\"hidden\"}`
	frame := `{"type":"events","payload":"{\"room\":\"7\",\"log\":\"L\",\"events\":[` + event + `]}","kid":"k","sig":"s"}`
	for _, c := range []struct {
		name, channel string
		from          Side
		data          string
		good          bool
	}{
		{"events", "/v1/presenter", Server, frame, true},
		{"text", "/v1/presenter", Server, "pong", true},
		{"the original's", "/chatting", Server, `{"id":"error","message":"x"}`, true},
		{"by the other side", "/v1/presenter", Client, frame, false},
		{"another channel's", "/chatting", Server, frame, false},
		{"an unknown member", "/v1/presenter", Server, `{"type":"skipped","to":1,"from":0}`, false},
		{"an unknown type", "/v1/presenter", Server, `{"type":"pause"}`, false},
		{"an unknown member of an event", "/v1/presenter", Server, strings.Replace(frame, `\"kind\"`, `\"staff\":1,\"kind\"`, 1), false},
		{"no event", "/v1/presenter", Server, strings.Replace(frame, event, "", 1), false},
		{"a code of no catalogue", "/v1/presenter", Server, `{"type":"error","code":"no.such","detail":"x"}`, false},
		{"no JSON", "/v1/presenter", Server, `PONG`, false},
	} {
		heard := &hearing{TB: t}
		Frame(heard, c.channel, c.from, []byte(c.data))
		if good := len(heard.said) == 0; good != c.good {
			t.Errorf("%s: documented %t, want %t: %v", c.name, good, c.good, heard.said)
		}
	}
	for refusal, good := range map[string]bool{"link.replaced": true, "forbidden": false} {
		heard := &hearing{TB: t}
		Close(heard, "/v1/presenter", 4500, refusal)
		if got := len(heard.said) == 0; got != good {
			t.Errorf("4500 after %s: documented %t, want %t", refusal, got, good)
		}
	}
}
