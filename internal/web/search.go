package web

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
)

// searchTime is how long one search may take, waiting for others included.
const searchTime = 3 * time.Second

// search answers GET …/events?q= with a page of the lines that have every word
// of q in them. Such a page has gaps, and may be empty and still have a next:
// one search looks at a bounded part of the room.
func (s *Server) search(w http.ResponseWriter, r *http.Request) error {
	if s.Search == nil {
		return chat.Refuse(chat.SearchOff)
	}
	if _, err := s.mayRead(r); err != nil {
		return err
	}
	c, words, err := parseSearch(r)
	if err != nil {
		return err
	}
	st, err := s.stateOf(r)
	if err != nil {
		return err
	}
	if c.Log != "" && c.Log != s.Log.ID() || c.Before != nil && *c.Before > st.Seq+1 {
		return chat.Refuse(chat.CursorForeign)
	}
	rows, next, err := s.find(r.Context(), st.Room, words, c)
	if err != nil {
		return err
	}
	// What readers are not shown is not found either.
	first := s.Reading.first(st)
	rows = slices.DeleteFunc(rows, func(row chat.Row) bool { return row.Seq < first })
	p := s.page(st, c, rows)
	if p.Next = nil; next > first {
		p.Next = &next
	}
	return answer(w, http.StatusOK, p)
}

func parseSearch(r *http.Request) (cursor, []string, error) {
	q := r.URL.Query()
	c, err := parseCursor(q)
	if err != nil {
		return c, nil, err
	}
	if c.After != nil {
		return c, nil, invalidQuery("q goes with before, not with after")
	}
	words, err := text.Query(q.Get("q"))
	var long *text.TooLongError
	switch {
	case errors.As(err, &long):
		err = invalidQuery("q can have 100 characters")
	case errors.Is(err, text.ErrEmpty):
		err = invalidQuery("q is empty")
	case err != nil:
		err = invalidQuery("q")
	}
	return c, words, err
}

func (s *Server) find(ctx context.Context, room string, words []string, c cursor) ([]chat.Row, int64, error) {
	var before int64
	if c.Before != nil {
		if before = *c.Before; before <= 1 {
			return nil, 0, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	rows, next, err := s.Search.Search(ctx, room, words, before, c.Limit)
	if err != nil && ctx.Err() != nil {
		err = &chat.Refusal{Code: chat.Overloaded, RetryAfter: searchTime, Cause: err}
	}
	return rows, next, err
}
