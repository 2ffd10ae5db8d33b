package web

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// Bounds of a page of events, in rows.
const (
	defaultPage = 50
	maxPage     = 200
)

// cursor says which page is wanted: the rows after a place, before one, or,
// with neither, the newest.
type cursor struct {
	After, Before *int64
	Log           string // the log that the place belongs to, "" when the client does not say
	Limit         int
}

// parseCursor reads a query. Parameters it does not know are left alone.
func parseCursor(q url.Values) (cursor, error) {
	c := cursor{Limit: defaultPage}
	for name, values := range q {
		if len(values) != 1 {
			return c, invalidQuery(name + " stands there more than once")
		}
		var err error
		switch v := values[0]; name {
		case "after":
			c.After, err = parseSeq(v)
		case "before":
			c.Before, err = parseSeq(v)
		case "log":
			if c.Log = v; !visible(v, wire.MaxLogID) {
				err = strconv.ErrSyntax
			}
		case "limit":
			if c.Limit, err = strconv.Atoi(v); err == nil && (c.Limit < 1 || c.Limit > maxPage) {
				err = strconv.ErrRange
			}
		}
		if err != nil {
			return c, invalidQuery(name)
		}
	}
	if c.After != nil && c.Before != nil {
		return c, invalidQuery("after and before exclude each other")
	}
	return c, nil
}

func invalidQuery(reason string) error {
	return &chat.Refusal{Code: chat.QueryInvalid, Params: map[string]any{"reason": reason}}
}

// parseSeq reads a place in a room: decimal digits, at most wire.MaxSeq.
func parseSeq(v string) (*int64, error) {
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil || n > wire.MaxSeq || (len(v) > 1 && v[0] == '0') {
		return nil, strconv.ErrSyntax
	}
	seq := int64(n)
	return &seq, nil
}

// page is a run of events, oldest first, with no gap. Next is the place to ask
// from, in the direction that was asked; null when there is nothing more.
type page struct {
	Log    string       `json:"log"`
	Room   string       `json:"room"`
	Events []chat.Event `json:"events"`
	First  *int64       `json:"first"`
	Last   *int64       `json:"last"`
	Head   int64        `json:"head"`
	Next   *int64       `json:"next"`
}

// Seconds for which caches may hold a page. Viewers that heal ask for the same
// pages, aligned to 100 rows; newcomers all ask for the newest.
const (
	cachePage   = 2
	cacheNewest = 1
)

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	w.Header().Add("Vary", "Accept")
	if r.URL.Query().Has("q") {
		return s.search(w, r)
	}
	c, err := parseCursor(r.URL.Query())
	if err != nil {
		return err
	}
	if wantsStream(r) {
		return s.follow(w, r, c)
	}
	if _, err := s.mayRead(r); err != nil {
		return err
	}
	st, err := s.stateOf(r)
	if err != nil {
		return err
	}
	if c.After != nil && *c.After > st.Seq || c.Before != nil && *c.Before > st.Seq+1 {
		// This node may not have learnt of all that is logged; the store knows.
		heads, err := s.Log.Heads(r.Context(), []string{st.Room})
		if err != nil {
			return &chat.Refusal{Code: chat.LogUnavailable, RetryAfter: 2 * time.Second, Cause: err}
		}
		st.Seq = max(st.Seq, heads[st.Room])
	}
	if c.Log != "" && c.Log != s.Log.ID() || c.After != nil && *c.After > st.Seq || c.Before != nil && *c.Before > st.Seq+1 {
		return chat.Refuse(chat.CursorForeign)
	}
	if s.Reading.cache(w.Header(), c.cacheFor()); s.notModified(w, r, st.Seq) {
		return nil
	}
	rows, err := s.rows(r.Context(), st.Room, c)
	if err != nil {
		return err
	}
	p := s.page(st, c, rows)
	w.Header().Set("ETag", s.pageTag(p.Head))
	return answer(w, http.StatusOK, p)
}

func (c cursor) cacheFor() int {
	if c.After == nil && c.Before == nil {
		return cacheNewest
	}
	return cachePage
}

// pageTag is the ETag of a page. What a page shows follows from its address and
// the log up to the head that it names, so that nothing need be read to know it.
func (s *Server) pageTag(head int64) string {
	return `W/"` + s.Log.ID() + "." + strconv.FormatInt(head, 10) + `"`
}

// notModified answers a reader who has the page as it is now.
func (s *Server) notModified(w http.ResponseWriter, r *http.Request, head int64) bool {
	tag := s.pageTag(head)
	for _, have := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimSpace(have) == tag {
			w.Header().Set("ETag", tag)
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// rows reads a whole page; the log may give it in parts.
func (s *Server) rows(ctx context.Context, room string, c cursor) ([]chat.Row, error) {
	if c.After == nil {
		if c.Before == nil {
			return s.Log.Before(ctx, room, 0, c.Limit)
		}
		if *c.Before <= 1 {
			return nil, nil
		}
		return s.Log.Before(ctx, room, *c.Before, c.Limit)
	}
	var all []chat.Row
	for at := *c.After; len(all) < c.Limit; at = all[len(all)-1].Seq {
		rows, err := s.Log.After(ctx, room, at, c.Limit-len(all))
		if err != nil || len(rows) == 0 {
			return all, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

func (s *Server) page(st chat.State, c cursor, rows []chat.Row) page {
	p := page{Log: s.Log.ID(), Room: st.Room, Head: st.Seq, Events: make([]chat.Event, len(rows))}
	for i, row := range rows {
		p.Events[i] = s.face(st, row)
	}
	if len(rows) == 0 {
		return p
	}
	first, last := rows[0].Seq, rows[len(rows)-1].Seq
	p.First, p.Last, p.Head = &first, &last, max(p.Head, last)
	switch {
	case c.After != nil && last < p.Head:
		p.Next = &last
	case c.After == nil && first > 1:
		p.Next = &first
	}
	return p
}

// face is what a reader is shown of a row: its public face, if they may read so
// far back.
func (s *Server) face(st chat.State, row chat.Row) chat.Event {
	if row.Seq < s.Reading.first(st) {
		return chat.Event{Seq: row.Seq, Kind: chat.KindHidden}
	}
	return row.Event()
}
