package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// searched is a page of a search.
func (f *fixture) searched(query url.Values) (p page, seqs []int64) {
	f.Helper()
	resp, body := f.call("GET", "/v1/rooms/7/events?"+query.Encode(), "")
	if err := json.Unmarshal(body, &p); err != nil || resp.StatusCode != 200 {
		f.Fatalf("%v: %d %s %v", query, resp.StatusCode, body, err)
	}
	for _, e := range p.Events {
		seqs = append(seqs, e.Seq)
	}
	return p, seqs
}

func searchable(t *testing.T) *fixture {
	f := newFixture(t, nil)
	f.server.Search = f.log
	return f.onAir()
}

func TestSearch(t *testing.T) {
	f := searchable(t)
	for i := range 10 { // seq 3 to 12
		if resp, body := f.say(fmt.Sprintf("안녕 %d번 👍", i)); resp.StatusCode != 201 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	for _, c := range []struct {
		query url.Values
		want  []int64
		next  int64
	}{
		{url.Values{"q": {"안녕"}}, []int64{3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 0},
		{url.Values{"q": {"5번 안녕"}}, []int64{8}, 0},
		{url.Values{"q": {"👍"}, "limit": {"2"}}, []int64{11, 12}, 11},
		{url.Values{"q": {"👍"}, "limit": {"2"}, "before": {"11"}}, []int64{9, 10}, 9},
		{url.Values{"q": {"안녕"}, "before": {"4"}, "log": {"LOG"}}, []int64{3}, 0},
		{url.Values{"q": {"안녕"}, "before": {"1"}}, nil, 0},
		{url.Values{"q": {"안녕"}, "before": {"0"}}, nil, 0},
		{url.Values{"q": {"없는말"}}, nil, 0},
		{url.Values{"q": {"이름42"}}, nil, 0}, // a nickname is not what was said
	} {
		p, got := f.searched(c.query)
		if !slices.Equal(got, c.want) || p.Head != 12 || p.Log != "LOG" || p.Room != "7" {
			t.Errorf("%v: got %v of %+v, want %v", c.query, got, p, c.want)
		}
		if next := seqOr0(p.Next); next != c.next {
			t.Errorf("%v: next %d, want %d", c.query, next, c.next)
		}
		if len(c.want) > 0 && (seqOr0(p.First) != c.want[0] || seqOr0(p.Last) != c.want[len(c.want)-1]) {
			t.Errorf("%v: first %d last %d, want those of %v", c.query, seqOr0(p.First), seqOr0(p.Last), c.want)
		}
	}
}

// seqOr0 is a place, or 0 for null.
func seqOr0(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func TestSearchRefusals(t *testing.T) {
	f := searchable(t)
	for name, query := range map[string]string{
		"empty": "q=", "only space": "q=%20%0a", "too long": "q=" + strings.Repeat("%EA%B0%80", 101), "not UTF-8": "q=%ff", "twice": "q=a&q=b",
		"with after": "q=a&after=0", "limit": "q=a&limit=0", "before": "q=a&before=x", "marks": "q=a" + strings.Repeat("%CC%80", 9),
	} {
		resp, body := f.call("GET", "/v1/rooms/7/events?"+query, "")
		f.wantProblem(name, resp, body, chat.QueryInvalid)
	}
	for name, query := range map[string]string{"another log": "q=a&log=OTHER", "beyond the head": "q=a&before=99"} {
		resp, body := f.call("GET", "/v1/rooms/7/events?"+query, "")
		f.wantProblem(name, resp, body, chat.CursorForeign)
	}
	resp, body := f.call("GET", "/v1/rooms/-7/events?q=a", "")
	f.wantProblem("bad room", resp, body, chat.RoomInvalid)
	f.server.Search = nil
	resp, body = f.call("GET", "/v1/rooms/7/events?q=a", "")
	f.wantProblem("switched off", resp, body, chat.SearchOff)
}

// stuck is a search that comes to no end before its time is over.
type stuck struct{ t *testing.T }

func (s stuck) Search(ctx context.Context, _ string, _ []string, _ int64, _ int) ([]chat.Row, int64, error) {
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > searchTime {
		s.t.Error("a search has no bound in time")
	}
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

func TestSearchThatTakesTooLong(t *testing.T) {
	f := searchable(t)
	f.server.Search = stuck{t}
	resp, body := f.call("GET", "/v1/rooms/7/events?q=a", "")
	f.wantProblem("too long", resp, body, chat.Overloaded)
}
