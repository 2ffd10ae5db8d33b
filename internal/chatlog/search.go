package chatlog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
)

const (
	maxLooked  = 5000 // rows that one search looks at
	lookAtOnce = 500
)

var _ chat.Searcher = (*Index)(nil)

// Search implements [chat.Searcher]. It walks from the newest row back: first
// through what is not indexed yet, row by row, then through what the index
// names. In the end the row's own text decides: grams may lie apart in it.
//
// A word of one code point has no pair. One that is a symbol is in the index by
// itself; for another the rows are walked through, which the bound and next
// make slow for who asks for it and cheap for everybody else. Refusing it was
// weighed: a single syllable is a sentence in Korean.
func (x *Index) Search(ctx context.Context, room string, words []string, before int64, limit int) ([]chat.Row, int64, error) {
	select {
	case x.slots <- struct{}{}:
		defer func() { <-x.slots }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	number, indexed, err := x.positionOf(ctx, room)
	if err != nil {
		return nil, 0, err
	}
	query := expression(words)
	if query == "" {
		indexed = 0 // the index can say nothing
	}
	heads, err := x.reader.Heads(ctx, []string{room})
	if err != nil {
		return nil, 0, err
	}
	s := searching{words: words, at: heads[room] + 1, limit: limit, left: maxLooked}
	if before > 0 {
		s.at = min(s.at, before)
	}
	for s.at > indexed+1 && !s.done() {
		rows, err := x.reader.Before(ctx, room, s.at, int(min(lookAtOnce, s.left, s.at-1-indexed)))
		if err != nil {
			return nil, 0, err
		}
		slices.Reverse(rows)
		s.take(rows)
	}
	for s.at > 1 && !s.done() {
		rows, err := x.candidates(ctx, room, number, query, s.at, int(min(lookAtOnce, s.left)))
		if err != nil {
			return nil, 0, err
		}
		if s.take(rows); len(rows) == 0 {
			s.at = 0
		}
	}
	rows, next := s.result()
	return rows, next, nil
}

// expression asks the index for the rows that have every gram of the words. It
// is empty when they have none: words of one code point that is no symbol.
func expression(words []string) string {
	grams := text.Grams(strings.Join(words, " "))
	if len(grams) == 0 {
		return ""
	}
	return `"` + strings.Join(grams, `" AND "`) + `"`
}

// searching is a search on its way back through a room.
type searching struct {
	words []string
	at    int64 // everything from here on has been looked at
	limit int   // rows that are wanted
	left  int64 // rows that may still be looked at
	found []chat.Row
}

func (s *searching) done() bool { return len(s.found) == s.limit || s.left <= 0 }

// take looks at rows, newest first.
func (s *searching) take(rows []chat.Row) {
	for _, row := range rows {
		if s.done() {
			return
		}
		s.at = row.Seq
		s.left--
		if row.Kind == chat.KindMessage && text.ContainsAll(text.Fold(row.Text), s.words) {
			s.found = append(s.found, row)
		}
	}
}

func (s *searching) result() (rows []chat.Row, next int64) {
	slices.Reverse(s.found)
	if s.at > 1 {
		next = s.at
	}
	return s.found, next
}

// positionOf is a room's number in the index and how far it has come there: 0
// and 0 for a room that it has not seen.
func (x *Index) positionOf(ctx context.Context, room string) (number, indexed int64, err error) {
	err = x.stmts.position.QueryRowContext(ctx, room).Scan(&number, &indexed)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return number, indexed, err
}

// candidates are the rows before a seq that have all tokens, newest first.
func (x *Index) candidates(ctx context.Context, room string, number int64, query string, before int64, most int) ([]chat.Row, error) {
	base := number << seqBits
	var seqs []int64
	err := each(ctx, x.stmts.find, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		seqs = append(seqs, id-base)
		return err
	}, query+` AND "`+roomGram(number)+`"`, base, base+before, most)
	if err != nil || len(seqs) == 0 {
		return nil, err
	}
	list, err := json.Marshal(seqs)
	if err != nil {
		return nil, err
	}
	return queryRows(ctx, x.reader.read.some, room, room, string(list))
}
