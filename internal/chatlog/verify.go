package chatlog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math"
	"strconv"
	"strings"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// RoomReport is what a verification found in one room.
type RoomReport struct {
	Room     string
	Rows     int64
	Head     int64    // the last seq
	Hash     string   // of the rows, see hashRow: two copies of a room with the same rows have the same
	Problems []string // at most maxProblems and a line that says how many more
}

const (
	maxProblems = 20
	verifyStep  = 1000 // seqs that are read at once
)

// Verify holds the log against its promises: in every room seq counts 1, 2, 3
// with no gap and no double, time does not run backwards, and every row can be
// read. each gets the rooms in the order of their names. problems are those of
// the file as a whole.
//
// Rooms are read in pages. SQLite's own check of the file is one statement,
// which keeps the WAL from being folded for as long as it takes.
func (r *Reader) Verify(ctx context.Context, each func(RoomReport) error) (problems []string, err error) {
	for room, err := range r.Rooms(ctx) {
		if err != nil {
			return nil, err
		}
		report, err := r.verifyRoom(ctx, room)
		if err != nil {
			return nil, err
		}
		if err := each(report); err != nil {
			return nil, err
		}
	}
	if problems, err = r.schemaProblems(ctx); err != nil {
		return nil, err
	}
	found, err := r.integrityProblems(ctx)
	return append(problems, found...), err
}

// verifyRoom reads a room up to where it ends at the beginning. Its steps are
// ranges of seq and not counts of rows, or a double at the edge of a page would
// be missed.
func (r *Reader) verifyRoom(ctx context.Context, room string) (RoomReport, error) {
	var head int64
	if err := r.db.QueryRowContext(ctx, `SELECT max(seq) FROM chat_log WHERE presenter_idx = ?`, room).Scan(&head); err != nil {
		return RoomReport{}, err
	}
	v := verifying{report: RoomReport{Room: room, Head: head}, hash: sha256.New(), at: math.MinInt64}
	for v.seq < head {
		next, err := r.nextSeq(ctx, room, v.seq)
		if err == nil {
			err = r.verifyRange(ctx, &v, next, min(head, next+verifyStep-1))
		}
		if ctx.Err() != nil {
			return RoomReport{}, ctx.Err()
		}
		if err != nil { // the file itself is damaged here
			v.problem("after seq %d: %v", v.seq, err)
			break
		}
	}
	v.report.Hash = hex.EncodeToString(v.hash.Sum(nil))
	if more := v.found - maxProblems; more > 0 {
		v.report.Problems = append(v.report.Problems, fmt.Sprintf("and %d more", more))
	}
	return v.report, nil
}

func (r *Reader) nextSeq(ctx context.Context, room string, after int64) (seq int64, err error) {
	err = r.db.QueryRowContext(ctx, `SELECT seq FROM chat_log WHERE presenter_idx = ? AND seq > ? ORDER BY seq LIMIT 1`, room, after).Scan(&seq)
	return seq, err
}

func (r *Reader) verifyRange(ctx context.Context, v *verifying, from, to int64) error {
	rows, err := r.db.QueryContext(ctx, `SELECT `+columns+` FROM chat_log WHERE presenter_idx = ? AND seq BETWEEN ? AND ? ORDER BY seq`, v.report.Room, from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := scanStored(rows)
		if err != nil {
			return err
		}
		v.take(row)
	}
	return rows.Err()
}

// stored is a row as it stands in the file.
type stored struct {
	seq, time                                     int64
	id, room, kind, user, nickname, message, idem string
	data, staff                                   sql.NullString
}

func scanStored(rows *sql.Rows) (s stored, err error) {
	var idem sql.NullString
	err = rows.Scan(&s.seq, &s.id, &s.room, &s.kind, &s.user, &s.nickname, &s.message, &s.time, &idem, &s.data, &s.staff)
	if s.idem = s.id; idem.Valid {
		s.idem = idem.String
	}
	return s, err
}

// verifying is a room on its way through a verification.
type verifying struct {
	report RoomReport
	hash   hash.Hash
	seq    int64 // of the row before
	at     int64 // its time
	found  int   // problems
	buf    []byte
}

func (v *verifying) problem(format string, args ...any) {
	if v.found++; v.found <= maxProblems {
		v.report.Problems = append(v.report.Problems, fmt.Sprintf(format, args...))
	}
}

func (v *verifying) take(row stored) {
	switch {
	case row.seq == v.seq:
		v.problem("double: seq %d stands there twice", row.seq)
	case row.seq == v.seq+2:
		v.problem("gap: seq %d is missing", v.seq+1)
	case row.seq > v.seq+1:
		v.problem("gap: seq %d to %d are missing", v.seq+1, row.seq-1)
	}
	if row.time < v.at {
		v.problem("time: seq %d is earlier than seq %d", row.seq, v.seq)
	}
	if err := row.readable(); err != nil {
		v.problem("unreadable: seq %d: %v", row.seq, err)
	}
	v.buf = hashRow(v.hash, row, v.buf)
	v.seq, v.at = row.seq, row.time
	v.report.Rows++
}

func (s stored) readable() error {
	if s.data.Valid && json.Unmarshal([]byte(s.data.String), new(chat.Details)) != nil {
		return errors.New("data is not JSON of ours")
	}
	if s.staff.Valid && json.Unmarshal([]byte(s.staff.String), new(chat.StaffDetails)) != nil {
		return errors.New("staff is not JSON of ours")
	}
	return nil
}

// hashRow adds a row to a room's hash. The canonical form of a room is the
// columns of its rows in the order of seq: seq, id, room_idx, kind, user_idx,
// nickname, message, time (ms since 1970), idem (the id where it is null), data,
// staff. Each is a
// netstring ("5:hello,"), numbers as decimal digits, NULL as "-,". It says
// nothing of how a store lays rows out, so that another kind of log can give
// the same hash.
func hashRow(h hash.Hash, s stored, buf []byte) []byte {
	put := func(field string) {
		buf = strconv.AppendInt(buf, int64(len(field)), 10)
		buf = append(append(append(buf, ':'), field...), ',')
	}
	number := func(n int64) { put(strconv.FormatInt(n, 10)) }
	number(s.seq)
	for _, field := range []string{s.id, s.room, s.kind, s.user, s.nickname, s.message} {
		put(field)
	}
	number(s.time)
	put(s.idem)
	for _, field := range []sql.NullString{s.data, s.staff} {
		if field.Valid {
			put(field.String)
		} else {
			buf = append(buf, '-', ',')
		}
	}
	h.Write(buf)
	return buf[:0]
}

// schemaProblems compares the file's schema with the one that this program
// makes: uniqueness is only as good as the indexes that watch over it.
func (r *Reader) schemaProblems(ctx context.Context) (problems []string, err error) {
	fresh, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	defer fresh.Close()
	fresh.SetMaxOpenConns(1)
	if _, err := fresh.ExecContext(ctx, strings.Join(migrations, ";")); err != nil {
		return nil, err
	}
	want, err := schemaOf(ctx, fresh)
	if err != nil {
		return nil, err
	}
	got, err := schemaOf(ctx, r.db)
	for name, sql := range want {
		if got[name] != sql {
			problems = append(problems, fmt.Sprintf("schema: %s is missing or another than this program makes", name))
		}
	}
	for name := range got {
		if _, ours := want[name]; !ours {
			problems = append(problems, fmt.Sprintf("schema: %s is not of this program", name))
		}
	}
	return problems, err
}

func schemaOf(ctx context.Context, db *sql.DB) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, `SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	schema := map[string]string{}
	for rows.Next() {
		var name, sql string
		if err := rows.Scan(&name, &sql); err != nil {
			return nil, err
		}
		schema[name] = strings.Join(strings.Fields(sql), " ")
	}
	return schema, rows.Err()
}

func (r *Reader) integrityProblems(ctx context.Context) (problems []string, err error) {
	rows, err := r.db.QueryContext(ctx, fmt.Sprintf("PRAGMA integrity_check(%d)", maxProblems))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		if line != "ok" {
			problems = append(problems, "file: "+line)
		}
	}
	return problems, rows.Err()
}
