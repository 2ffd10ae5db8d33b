package chatlog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"slices"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Reader reads a log's file. It needs no lock, so it works beside the process
// that writes, and each call is one short statement: a reader that stays long
// in one would keep the WAL from being folded into the file, and it would grow
// for as long.
type Reader struct {
	id   string
	path string
	db   *sql.DB
	read readStmts
}

// OpenReader opens the log at path for reading. The file must be there and have
// the schema that this program writes.
func OpenReader(ctx context.Context, path string) (_ *Reader, err error) {
	r := &Reader{path: path}
	defer func() {
		if err != nil {
			_ = r.Close()
			err = fmt.Errorf("log %s: %w", path, err)
		}
	}()
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	if err := r.connect(readers); err != nil {
		return nil, err
	}
	if err := checkSchema(ctx, r.db); err != nil {
		return nil, err
	}
	if err := r.db.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = 'log_id'`).Scan(&r.id); err != nil {
		return nil, err
	}
	return r, r.read.prepare(ctx, r.db)
}

func (r *Reader) connect(most int) (err error) {
	if r.db, err = sql.Open("sqlite", dsn(r.path, readerPragmas)); err != nil {
		return err
	}
	r.db.SetMaxOpenConns(most)
	r.db.SetMaxIdleConns(most)
	return nil
}

// ID implements [chat.Log].
func (r *Reader) ID() string { return r.id }

// Close ends the reading.
func (r *Reader) Close() error {
	if r.db == nil {
		return nil
	}
	return r.db.Close()
}

type readStmts struct {
	after, before, idem, marks, last, heads, live, nextRoom, some *sql.Stmt
}

func (r *readStmts) prepare(ctx context.Context, db *sql.DB) error {
	return prepareAll(ctx, db, map[**sql.Stmt]string{
		&r.after:  `SELECT ` + columns + ` FROM chat_log WHERE presenter_idx = ? AND seq > ? ORDER BY seq LIMIT ?`,
		&r.before: `SELECT ` + columns + ` FROM chat_log WHERE presenter_idx = ? AND seq < ? ORDER BY seq DESC LIMIT ?`,
		&r.idem:   byIdem,
		&r.marks: `SELECT ` + columns + ` FROM chat_log INDEXED BY chat_log_mark
			WHERE presenter_idx = ? AND seq > ? AND seq <= ? AND kind <> 'message' ORDER BY seq`,
		&r.last: `SELECT ` + columns + ` FROM chat_log WHERE presenter_idx = ? ORDER BY seq DESC LIMIT 1`,
		// One seek per room: grouping over IN (…) would walk every row of them.
		&r.heads: `SELECT value, coalesce((SELECT max(seq) FROM chat_log WHERE presenter_idx = value), 0) FROM json_each(?)`,
		// SQLite takes the other columns from the row that has the max.
		&r.live: `SELECT presenter_idx FROM (
				SELECT presenter_idx, data, max(seq) FROM chat_log INDEXED BY chat_log_mark
				WHERE kind <> 'message' AND kind = 'broadcast' GROUP BY presenter_idx)
			WHERE json_extract(data, '$.state') = 'started' ORDER BY presenter_idx`,
		// A CROSS JOIN is not reordered: one seek per seq, never a walk of the room.
		&r.some: `SELECT ` + columns + ` FROM (SELECT value AS wanted FROM json_each(?2)) CROSS JOIN chat_log
			WHERE presenter_idx = ?1 AND seq = wanted ORDER BY seq DESC`,
		&r.nextRoom: `SELECT presenter_idx FROM chat_log WHERE presenter_idx > ? ORDER BY presenter_idx LIMIT 1`,
	})
}

// After implements [chat.Log].
func (r *Reader) After(ctx context.Context, room string, after int64, limit int) ([]chat.Row, error) {
	return queryRows(ctx, r.read.after, room, room, after, limit)
}

// Before implements [chat.Log].
func (r *Reader) Before(ctx context.Context, room string, before int64, limit int) ([]chat.Row, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	rows, err := queryRows(ctx, r.read.before, room, room, before, limit)
	slices.Reverse(rows)
	return rows, err
}

// ByIdem implements [chat.Log].
func (r *Reader) ByIdem(ctx context.Context, room, idem string) (chat.Row, bool, error) {
	rows, err := queryRows(ctx, r.read.idem, room, room, idem)
	if err != nil || len(rows) == 0 {
		return chat.Row{}, false, err
	}
	return rows[0], true, nil
}

// Marks implements [chat.Log]. The marks stop at the last row that was read
// first, which makes the two reads one moment.
func (r *Reader) Marks(ctx context.Context, room string, after int64) ([]chat.Row, chat.Row, error) {
	last, err := queryRows(ctx, r.read.last, room, room)
	if err != nil || len(last) == 0 {
		return nil, chat.Row{}, err
	}
	marks, err := queryRows(ctx, r.read.marks, room, room, after, last[0].Seq)
	return marks, last[0], err
}

// Heads implements [chat.Log].
func (r *Reader) Heads(ctx context.Context, rooms []string) (map[string]int64, error) {
	heads := make(map[string]int64, len(rooms))
	list, err := json.Marshal(append([]string{}, rooms...)) // never null, which would be a row
	if err != nil {
		return nil, err
	}
	err = each(ctx, r.read.heads, func(scan func(...any) error) error {
		var room string
		var seq int64
		if err := scan(&room, &seq); err != nil {
			return err
		}
		if seq > 0 {
			heads[room] = seq
		}
		return nil
	}, string(list))
	return heads, err
}

// Live implements [chat.Log].
func (r *Reader) Live(ctx context.Context) ([]string, error) {
	var rooms []string
	err := each(ctx, r.read.live, func(scan func(...any) error) error {
		var room string
		err := scan(&room)
		rooms = append(rooms, room)
		return err
	})
	return rooms, err
}

// Rooms gives the rooms of the log in the order of their names. Each is one
// seek: a DISTINCT would walk every row.
func (r *Reader) Rooms(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for room := ""; ; {
			err := r.read.nextRoom.QueryRowContext(ctx, room).Scan(&room)
			if errors.Is(err, sql.ErrNoRows) || !yield(room, err) || err != nil {
				return
			}
		}
	}
}

// Walk gives a room's rows after one place and before another (0: to the end),
// in pages: no statement lives longer than it takes to read one.
func (r *Reader) Walk(ctx context.Context, room string, after, before int64) iter.Seq2[chat.Row, error] {
	return func(yield func(chat.Row, error) bool) {
		for {
			rows, err := r.After(ctx, room, after, walkPage)
			if err != nil {
				yield(chat.Row{}, err)
				return
			}
			for _, row := range rows {
				if before > 0 && row.Seq >= before || !yield(row, nil) {
					return
				}
				after = row.Seq
			}
			if len(rows) == 0 {
				return
			}
		}
	}
}

// walkPage is how many rows are read at once: with the longest lines about 2 MB.
const walkPage = 1000

func each(ctx context.Context, stmt *sql.Stmt, row func(scan func(...any) error) error, args ...any) error {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func queryRows(ctx context.Context, stmt *sql.Stmt, room string, args ...any) ([]chat.Row, error) {
	var rows []chat.Row
	err := each(ctx, stmt, func(scan func(...any) error) error {
		r := chat.Row{Room: room}
		var kind string
		var at int64
		var idem, data, staff sql.NullString
		err := scan(&r.Seq, &r.ID, &r.Broadcast, &kind, &r.User.ID, &r.User.Nickname, &r.Text, &at, &idem, &data, &staff)
		if err != nil {
			return err
		}
		if r.Idem = r.ID; idem.Valid {
			r.Idem = idem.String
		}
		r.Kind, r.At = chat.Kind(kind), time.UnixMilli(at).UTC()
		if data.Valid {
			err = json.Unmarshal([]byte(data.String), &r.Details)
		}
		if err == nil && staff.Valid {
			err = json.Unmarshal([]byte(staff.String), &r.Staff)
		}
		if err != nil {
			return fmt.Errorf("room %s seq %d: %w", room, r.Seq, err)
		}
		rows = append(rows, r)
		return nil
	}, args...)
	return rows, err
}
