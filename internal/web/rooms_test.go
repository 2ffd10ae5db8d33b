package web

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
	"github.com/hanmadi/hanmadi/internal/wire"
)

func (f *fixture) lines(n int) *fixture {
	f.Helper()
	for i := range n {
		if resp, body := f.say(fmt.Sprint("줄 ", i)); resp.StatusCode != 201 {
			f.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	return f
}

func TestPagesOfEvents(t *testing.T) {
	f := newFixture(t, nil).onAir().lines(10) // seqs 1 (started), 2 (link), 3–12
	num := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		query       string
		first, last *int64
		next        *int64
	}{
		{"", num(1), num(12), nil},
		{"?limit=5", num(8), num(12), num(8)},
		{"?before=8&limit=5", num(3), num(7), num(3)},
		{"?before=3", num(1), num(2), nil},
		{"?before=1", nil, nil, nil},
		{"?before=13&limit=1", num(12), num(12), num(12)},
		{"?after=0&limit=5", num(1), num(5), num(5)},
		{"?after=5&limit=200", num(6), num(12), nil},
		{"?after=12", nil, nil, nil},
		{"?after=3&log=LOG&unknown=1", num(4), num(12), nil},
	} {
		resp, body := f.call("GET", "/v1/rooms/7/events"+c.query, "")
		var p page
		if err := json.Unmarshal(body, &p); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %d %s %v", c.query, resp.StatusCode, body, err)
		}
		show := func(n *int64) string {
			if n == nil {
				return "null"
			}
			return fmt.Sprint(*n)
		}
		got := show(p.First) + " " + show(p.Last) + " " + show(p.Next)
		want := show(c.first) + " " + show(c.last) + " " + show(c.next)
		if got != want || p.Head != 12 || p.Log != "LOG" || p.Room != "7" {
			t.Errorf("%s: got first, last, next %s (head %d), want %s (head 12)", c.query, got, p.Head, want)
		}
		for i, e := range p.Events {
			if e.Seq != *p.First+int64(i) {
				t.Errorf("%s: event %d has seq %d", c.query, i, e.Seq)
			}
		}
		if !strings.Contains(string(body), `"events":[`) {
			t.Errorf("%s: events is no array: %s", c.query, body)
		}
	}
}

func TestPageRefusals(t *testing.T) {
	f := newFixture(t, nil).onAir()
	for query, want := range map[string]chat.Code{
		"?after=1&before=2": chat.QueryInvalid, "?after=x": chat.QueryInvalid, "?after=-1": chat.QueryInvalid, "?after=01": chat.QueryInvalid,
		"?after=9007199254740992": chat.QueryInvalid, "?limit=0": chat.QueryInvalid, "?limit=201": chat.QueryInvalid, "?limit=x": chat.QueryInvalid,
		"?after=1&after=2": chat.QueryInvalid, "?log=" + strings.Repeat("x", 65): chat.QueryInvalid,
		"?after=3": chat.CursorForeign, "?before=4": chat.CursorForeign, "?log=OTHER": chat.CursorForeign, "?log=OTHER&after=1": chat.CursorForeign,
	} {
		resp, body := f.call("GET", "/v1/rooms/7/events"+query, "")
		f.wantProblem(query, resp, body, want)
	}
	resp, body := f.call("GET", "/v1/rooms/a%20b/events", "")
	f.wantProblem("bad room", resp, body, chat.RoomInvalid)
}

func TestRoomAndHead(t *testing.T) {
	f := newFixture(t, nil)
	if _, body := f.call("GET", "/v1/rooms/7", ""); strings.TrimSpace(string(body)) != `{"room":"7","live":false,"linked":false,"log":"LOG","head":0}` {
		t.Errorf("an empty room: %s", body)
	}
	f.onAir()
	_, body := f.call("GET", "/v1/rooms/7", "")
	if !strings.HasPrefix(string(body), `{"room":"7","live":true,"linked":false,"log":"LOG","head":2,"broadcast":{"id":"ID`) {
		t.Errorf("a live room: %s", body)
	}
	resp, body := f.call("GET", "/v1/rooms/7/head", "")
	if !strings.HasPrefix(string(body), `{"log":"LOG","seq":2,"broadcast":"ID`) || resp.Header.Get("Cache-Control") != "public, max-age=1" {
		t.Errorf("head: %s %v", body, resp.Header)
	}
}

func TestOperatorsBroadcasts(t *testing.T) {
	f := newFixture(t, nil)
	const body = `{"id":"881","title":"오늘 방송","started_at":"2026-11-22T10:00:00Z"}`
	put := func(body string, token string) (int, string) {
		resp, data := f.call("PUT", "/v1/rooms/7/broadcast", body, "Authorization", "Bearer "+token)
		return resp.StatusCode, strings.TrimSpace(string(data))
	}
	const want = `{"id":"881","title":"오늘 방송","started_at":"2026-11-22T10:00:00.000Z"}`
	if code, got := put(body, "operator"); code != 201 || got != want {
		t.Errorf("start: %d %s", code, got)
	}
	if code, got := put(body, "operator"); code != 200 || got != want {
		t.Errorf("start again: %d %s, want 200 and the same", code, got)
	}
	if code, _ := put(body, "42"); code != 403 {
		t.Errorf("by a viewer: %d, want 403", code)
	}
	if code, _ := put(body, "7"); code != 403 {
		t.Errorf("by the presenter: %d, want 403", code)
	}
	for _, bad := range []string{`{}`, `{"id":"a b"}`, `{"id":"1","started_at":"yesterday"}`, `{"id":"1","title":"` + strings.Repeat("가", 201) + `"}`, `{"id":1}`} {
		if code, got := put(bad, "operator"); code != 400 {
			t.Errorf("%s: %d %s, want 400", bad, code, got)
		}
	}
	f.lines(1)
	if resp, _ := f.call("DELETE", "/v1/rooms/7/broadcast", "", "Authorization", "Bearer operator"); resp.StatusCode != 204 {
		t.Errorf("end: %d, want 204", resp.StatusCode)
	}
	resp, data := f.say("늦은 줄")
	f.wantProblem("after the end", resp, data, chat.BroadcastEndedCode)
	resp, data = f.call("DELETE", "/v1/rooms/7/broadcast", "", "Authorization", "Bearer operator")
	f.wantProblem("ending nothing", resp, data, chat.BroadcastNotRunning)
	resp, data = f.call("DELETE", "/v1/rooms/7/broadcast", "", "Authorization", "Bearer 7")
	f.wantProblem("ending by the presenter", resp, data, chat.Forbidden)
}

// Accepted bodies mean the same when they are written again; refused ones have
// a code of the catalogue.
func FuzzDraft(f *testing.F) {
	for _, seed := range []string{`{"text":"안녕"}`, `{"text":"a","reply_to":3}`, `{"text":"\ud83d\ude00"}`, `{"text":"\ud800"}`, `{"text":"a","Text":"b"}`, `{`, `[]`, `{"text":null}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeDraft(data)
		if err != nil {
			wantKnown(t, err)
			return
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeDraft(again); err != nil || back != got {
			t.Errorf("%q became %+v, and that, written again, %+v %v", data, got, back, err)
		}
		if clean, err := text.Message(got.Text); err != nil || clean != got.Text {
			t.Errorf("%q is not clean", got.Text)
		}
	})
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"after=1", "before=2&limit=3", "after=1&before=2", "log=01JA&after=0", "after=9007199254740991", "limit=1e3", "after=%31"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		c, err := parseCursor(q)
		if err != nil {
			wantKnown(t, err)
			return
		}
		again := url.Values{"limit": {fmt.Sprint(c.Limit)}}
		if c.Log != "" {
			again.Set("log", c.Log)
		}
		for name, seq := range map[string]*int64{"after": c.After, "before": c.Before} {
			if seq != nil {
				again.Set(name, fmt.Sprint(*seq))
				if *seq < 0 || *seq > wire.MaxSeq {
					t.Errorf("%s %d is out of bounds", name, *seq)
				}
			}
		}
		back, err := parseCursor(again)
		if err != nil || fmt.Sprint(deref(back)) != fmt.Sprint(deref(c)) {
			t.Errorf("%q became %v, and that, written again, %v %v", query, deref(c), deref(back), err)
		}
	})
}

func deref(c cursor) [4]any {
	out := [4]any{nil, nil, c.Log, c.Limit}
	if c.After != nil {
		out[0] = *c.After
	}
	if c.Before != nil {
		out[1] = *c.Before
	}
	return out
}

func wantKnown(t *testing.T, err error) {
	t.Helper()
	ref, ok := err.(*chat.Refusal)
	if !ok {
		t.Fatalf("refused without a code: %v", err)
	}
	if _, known := chat.Catalogue()[ref.Code]; !known || unfilled.MatchString(ref.Detail(chat.Korean)) {
		t.Errorf("code %q, detail %q", ref.Code, ref.Detail(chat.Korean))
	}
}
