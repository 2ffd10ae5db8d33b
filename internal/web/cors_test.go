package web

import (
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

func TestPagesOfConfiguredSitesMayCall(t *testing.T) {
	const www, other = "https://www.example", "https://other.example"
	for _, c := range []struct {
		name    string
		cors    []string
		origin  string
		allowed string // Access-Control-Allow-Origin
		methods string // of the answer to the question before; "": it is refused
		headers string
	}{
		{"none configured", nil, www, "", "", ""},
		{"the configured one", []string{www}, www, www, "GET, POST", corsHeaders},
		{"in another case", []string{www}, "HTTPS://WWW.example", "HTTPS://WWW.example", "GET, POST", corsHeaders},
		{"another", []string{www}, other, "", "", ""},
		{"a page without an origin", []string{www}, "null", "", "", ""},
		{"any may read", []string{"*"}, other, "*", "GET", "last-event-id"},
		{"any may read, one may do more", []string{"*", www}, www, www, "GET, POST", corsHeaders},
		{"any may read, another may not do more", []string{"*", www}, other, "*", "GET", "last-event-id"},
		{"an origin that calls itself any", []string{"*"}, "*", "*", "GET", "last-event-id"},
	} {
		f := newFixture(t, func(o *Options) { o.CORS = c.cors }).onAir()
		resp, _ := f.call("GET", "/v1/rooms/7/events", "", "Origin", c.origin)
		h := resp.Header
		if got := h.Get("Access-Control-Allow-Origin"); got != c.allowed || resp.StatusCode != 200 {
			t.Errorf("%s: got %d, allowed %q, want %q", c.name, resp.StatusCode, got, c.allowed)
		}
		if exposes := h.Get("Access-Control-Expose-Headers"); (exposes != "") != (c.allowed != "") || c.allowed != "" && !strings.Contains(exposes, "retry-after") {
			t.Errorf("%s: exposes %q", c.name, exposes)
		}
		resp, body := f.call("OPTIONS", "/v1/rooms/7/messages", "", "Origin", c.origin, "Access-Control-Request-Method", "POST")
		h = resp.Header
		if c.methods == "" {
			if resp.StatusCode < 400 || h.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: the question before is answered %d %v %s", c.name, resp.StatusCode, h, body)
			}
			continue
		}
		if resp.StatusCode != 204 || h.Get("Access-Control-Allow-Methods") != c.methods || h.Get("Access-Control-Allow-Headers") != c.headers ||
			h.Get("Access-Control-Allow-Origin") != c.allowed {
			t.Errorf("%s: the question before is answered %d %v", c.name, resp.StatusCode, h)
		}
		if h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: credentials are allowed", c.name)
		}
	}
}

func TestCORSStaysWithTheRooms(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.CORS = []string{"https://www.example"} }).onAir()
	if resp, _ := f.call("GET", "/livez", "", "Origin", "https://www.example"); resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("livez: %v", resp.Header)
	}
	resp, body := f.call("OPTIONS", "/v1/rooms/7/events", "", "Origin", "https://other.example", "Access-Control-Request-Method", "GET")
	f.wantProblem("another site asks", resp, body, chat.OriginForeign)
	resp, body = f.call("OPTIONS", "/v1/rooms/7/events", "")
	f.wantProblem("no question of a browser", resp, body, chat.MethodNotAllowed)
	resp, _ = f.call("GET", "/v1/rooms/7/events", "")
	if got := strings.Join(resp.Header.Values("Vary"), ","); !strings.Contains(got, "Origin") {
		t.Errorf("without an Origin: Vary %q, want Origin in it, for caches", got)
	}
	resp, body = f.call("GET", "/v1/rooms/7/events?after=99", "", "Origin", "https://www.example")
	if f.wantProblem("a refusal", resp, body, chat.CursorForeign); resp.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Error("the page may not read why it was refused")
	}
	resp, _ = f.stream("/v1/rooms/7/events", "Origin", "https://www.example")
	if resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") != "https://www.example" {
		t.Errorf("a stream: %d %v", resp.StatusCode, resp.Header)
	}
}

// A gateway may turn cookies into identity headers. A browser sends none along
// with what it asked about first, and what is JSON it asks about.
func TestASiteThatMayCallMaySpeakBehindAGateway(t *testing.T) {
	f := newFixture(t, func(o *Options) { behindGateway(o); o.CORS = []string{"*", "https://www.example"} }).onAir()
	for origin, want := range map[string]int{"https://www.example": 201, "https://evil.example": 403, "*": 403} {
		resp, body := f.call("POST", "/v1/rooms/7/messages", `{"text":"안녕"}`, "Authorization", "Bearer 42",
			"Origin", origin, "Sec-Fetch-Site", "cross-site")
		if resp.StatusCode != want {
			t.Errorf("from a page of %s: got %d %s, want %d", origin, resp.StatusCode, body, want)
		}
	}
}
