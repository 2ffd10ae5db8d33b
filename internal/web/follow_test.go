package web

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// stream opens GET …/events as a browser would and gives its lines.
func (f *fixture) stream(path string, headers ...string) (*http.Response, *bufio.Reader) {
	f.Helper()
	ctx, cancel := context.WithCancel(f.Context())
	f.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", f.http.URL+path, nil)
	if err != nil {
		f.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := f.http.Client().Do(req)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { resp.Body.Close() })
	return resp, bufio.NewReader(resp.Body)
}

// until reads lines up to one that begins so, and returns it.
func (f *fixture) until(r *bufio.Reader, prefix string) string {
	f.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			f.Fatalf("waiting for %q: %v", prefix, err)
		}
		if strings.HasPrefix(line, prefix) {
			return strings.TrimSpace(line)
		}
	}
}

func TestFollowARoom(t *testing.T) {
	f := newFixture(t, nil).onAir().lines(3)
	resp, lines := f.stream("/v1/rooms/7/events?after=3", "Last-Event-ID", "4")
	h := resp.Header
	if resp.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" ||
		h.Get("X-Accel-Buffering") != "no" || h.Get("Vary") != "Accept" || h.Get("X-Request-Id") == "" {
		t.Fatalf("%d %v", resp.StatusCode, h)
	}
	if got := f.until(lines, "id:"); got != "id: 4" {
		t.Errorf("first: got %q, want the browser's own cursor", got)
	}
	if got := f.until(lines, "id:"); got != "id: 5" {
		t.Errorf("then: got %q, want the row that follows", got)
	}
	f.say("따라오세요")
	f.until(lines, "id: 6")
	f.until(lines, "event: events")
	data := strings.TrimPrefix(f.until(lines, "data:"), "data: ")
	var frame struct{ Payload, KID, Sig string }
	if err := json.Unmarshal([]byte(data), &frame); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	if err := f.server.Keys.Verify(frame.KID, frame.Sig, []byte(frame.Payload)); err != nil || !strings.Contains(frame.Payload, "따라오세요") {
		t.Errorf("%s: %v", data, err)
	}
}

func TestFollowingIsRefusedBeforeTheStream(t *testing.T) {
	f := newFixture(t, nil).onAir()
	for _, c := range []struct {
		path    string
		headers []string
		want    chat.Code
	}{
		{"/v1/rooms/7/events?log=OTHER", nil, chat.CursorForeign},
		{"/v1/rooms/7/events?after=3", nil, chat.CursorForeign},
		{"/v1/rooms/7/events?after=x", nil, chat.QueryInvalid},
		{"/v1/rooms/7/events?before=1", nil, chat.QueryInvalid},
		{"/v1/rooms/7/events", []string{"Last-Event-ID", "x"}, chat.QueryInvalid},
		{"/v1/rooms/7/events", []string{"Last-Event-ID", "1", "Last-Event-ID", "1"}, chat.QueryInvalid},
		{"/v1/rooms/7/events", []string{"Last-Event-ID", "3"}, chat.CursorForeign},
		{"/v1/rooms/a%20b/events", nil, chat.RoomInvalid},
		{"/v1/rooms/7/events", []string{"Authorization", "Bearer expired"}, chat.TokenExpired},
	} {
		body, _ := f.call("GET", c.path, "", append([]string{"Accept", "text/event-stream"}, c.headers...)...)
		what := c.path + " " + strings.Join(c.headers, " ")
		if got, want := body.StatusCode, chat.Lookup(c.want).Status; got != want {
			t.Errorf("%s: got %d, want %d", what, got, want)
		}
		if body.Header.Get("Content-Type") != "application/problem+json" || body.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", what, body.Header)
		}
	}
}

func TestAStreamIsAskedForByName(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                                    false,
		"*/*":                                 false,
		"text/*":                              false,
		"application/json":                    false,
		"text/event-stream":                   true,
		"TEXT/Event-Stream":                   true,
		"application/json, text/event-stream": true,
		"text/event-stream;q=0.5, application/json":       false,
		"text/event-stream;q=0":                           false,
		"text/event-stream;q=0.9, application/json;q=0.1": true,
		"text/html, text/event-stream; charset=utf-8":     true,
		"text/event-stream;;;":                            false,
		",":                                               false,
	} {
		r, _ := http.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		if got := wantsStream(r); got != want {
			t.Errorf("Accept %q: got %v, want %v", accept, got, want)
		}
		r.Method = "HEAD"
		if wantsStream(r) {
			t.Errorf("HEAD with Accept %q would never end", accept)
		}
	}
}

func TestPagesMayBeCached(t *testing.T) {
	f := newFixture(t, nil).onAir().lines(3)
	for path, want := range map[string]string{
		"/v1/rooms/7/events": "public, max-age=1", "/v1/rooms/7/events?after=0&limit=100": "public, max-age=2",
		"/v1/rooms/7/events?before=3": "public, max-age=2", "/v1/rooms/7/events?after=99": "no-store", "/v1/rooms/7/head": "public, max-age=1",
	} {
		resp, _ := f.call("GET", path, "")
		if got := resp.Header.Get("Cache-Control"); got != want {
			t.Errorf("%s: Cache-Control %q, want %q", path, got, want)
		}
		if strings.Contains(path, "events") && resp.Header.Values("Vary")[0] != "Accept" {
			t.Errorf("%s: Vary %q, want Accept", path, resp.Header.Values("Vary"))
		}
	}
}

func TestAReaderWhoHasThePageIsNotSentItAgain(t *testing.T) {
	f := newFixture(t, nil).onAir().lines(3)
	const path = "/v1/rooms/7/events?after=0&limit=100"
	resp, _ := f.call("GET", path, "")
	tag := resp.Header.Get("ETag")
	if tag != `W/"LOG.5"` {
		t.Errorf("ETag %q, want one of the log and its head", tag)
	}
	resp, body := f.call("GET", path, "", "If-None-Match", `"other", `+tag)
	if resp.StatusCode != 304 || len(body) != 0 || resp.Header.Get("ETag") != tag || resp.Header.Get("Cache-Control") != "public, max-age=2" {
		t.Errorf("again: got %d %s %v, want 304", resp.StatusCode, body, resp.Header)
	}
	f.lines(1)
	if resp, _ := f.call("GET", path, "", "If-None-Match", tag); resp.StatusCode != 200 || resp.Header.Get("ETag") == tag {
		t.Errorf("when the room has grown: got %d with ETag %s, want 200 with another", resp.StatusCode, resp.Header.Get("ETag"))
	}
}

func TestRoomsThatOnlyUsersMayRead(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Reading.Users = true }).onAir().lines(3)
	for _, path := range []string{"/v1/rooms/7/events", "/v1/rooms/7/head"} {
		resp, body := f.call("GET", path, "")
		f.wantProblem(path+" without a token", resp, body, chat.TokenMissing)
		resp, _ = f.call("GET", path, "", "Authorization", "Bearer 42")
		if got := resp.Header.Get("Cache-Control"); resp.StatusCode != 200 || got != "private, no-store" {
			t.Errorf("%s with a token: got %d, Cache-Control %q, want 200 and that nobody keeps it", path, resp.StatusCode, got)
		}
	}
	resp, body := f.call("GET", "/v1/rooms/7/events", "", "Accept", "text/event-stream")
	f.wantProblem("a stream without a token", resp, body, chat.TokenMissing)
	if resp, lines := f.stream("/v1/rooms/7/events?after=0", "Authorization", "Bearer 42"); resp.StatusCode != 200 {
		t.Errorf("a stream with a token: got %d", resp.StatusCode)
	} else {
		f.until(lines, "data:")
	}
}

func TestOnlyTheRunningBroadcastMayBeRead(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Reading.Broadcast = true }).onAir().lines(3)
	kinds := func(query string) (kinds []string) {
		_, body := f.call("GET", "/v1/rooms/7/events"+query, "")
		var p page
		if err := json.Unmarshal(body, &p); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		for _, e := range p.Events {
			kinds = append(kinds, string(e.Kind))
		}
		return kinds
	}
	if got, want := strings.Join(kinds(""), " "), "broadcast hidden message message message"; got != want {
		t.Errorf("while it runs: got %s, want %s", got, want)
	}
	if _, err := f.desk.EndBroadcast(t.Context(), "7", chat.User{}, "operator", nil); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(kinds(""), " "), "hidden hidden hidden hidden hidden hidden"; got != want {
		t.Errorf("when it is over: got %s, want %s", got, want)
	}
	f.onAir().lines(1)
	if got, want := strings.Join(kinds("?after=4"), " "), "hidden hidden broadcast hidden message"; got != want {
		t.Errorf("in the next: got %s, want %s", got, want)
	}
}

// FuzzFollow reads what asks for a stream: two headers.
func FuzzFollow(f *testing.F) {
	for _, seed := range []string{"text/event-stream", "text/event-stream;q=0.1, application/json", "*/*;q=NaN", ";;", "text/event-stream;q=1e999"} {
		f.Add(seed, "17")
	}
	f.Add("", "9007199254740992")
	f.Fuzz(func(t *testing.T, accept, id string) {
		r := &http.Request{Method: "GET", Header: http.Header{"Accept": {accept}, "Last-Event-Id": {id}}}
		if wantsStream(r) && !strings.Contains(strings.ToLower(accept), "text/event-stream") {
			t.Errorf("Accept %q opens a stream", accept)
		}
		after, err := followAfter(r.Header, cursor{})
		switch {
		case err != nil:
			wantKnown(t, err)
		case id == "":
			if after != nil {
				t.Errorf("no id is read as %d", *after)
			}
		case strconv.FormatInt(*after, 10) != id:
			t.Errorf("Last-Event-ID %q is read as %d", id, *after)
		}
	})
}
