package logtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Run holds a log against the contract. open makes an empty one for each test
// and closes it with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) chat.Log) {
	t.Helper()
	tests := map[string]func(*testing.T, chat.Log){
		"append numbers rows from 1 with no gap":     appendNumbers,
		"every field comes back as it went in":       fieldsComeBack,
		"append elsewhere than at the end is behind": appendBehind,
		"all rows of an append or none":              allOrNone,
		"a second row with the same idem":            duplicateIdem,
		"time never runs backwards in a room":        timeMonotonic,
		"pages forwards and backwards":               pages,
		"marks are the rows that are not lines":      marks,
		"heads of many rooms":                        heads,
		"rooms that are live":                        live,
		"appenders race for one room":                appendersRace,
		"readers see whole prefixes":                 readersSeePrefixes,
		"a cancelled append is surely not there":     cancelled,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// Line makes a message row of a room, ready to append.
func Line(id, text string) chat.Row {
	return chat.Row{ID: id, Idem: id, Kind: chat.KindMessage, Broadcast: "B1", Text: text,
		At: time.Date(2026, 11, 22, 10, 0, 0, 123e6, time.UTC), User: chat.Author{ID: "42", Nickname: "하늘"}}
}

func lines(prefix string, n int) []chat.Row {
	rows := make([]chat.Row, n)
	for i := range rows {
		rows[i] = Line(fmt.Sprintf("%s-%04d", prefix, i), fmt.Sprintf("%s %d번째 줄", prefix, i))
	}
	return rows
}

func mustAppend(t *testing.T, log chat.Log, room string, after int64, rows ...chat.Row) []chat.Row {
	t.Helper()
	stored, err := log.Append(t.Context(), room, after, rows)
	if err != nil {
		t.Fatalf("append %d rows to %s after %d: %v", len(rows), room, after, err)
	}
	if len(stored) != len(rows) {
		t.Fatalf("append of %d rows returned %d", len(rows), len(stored))
	}
	return stored
}

func mustAfter(t *testing.T, log chat.Log, room string, after int64, limit int) []chat.Row {
	t.Helper()
	rows, err := log.After(t.Context(), room, after, limit)
	if err != nil {
		t.Fatalf("after %d of %s: %v", after, room, err)
	}
	return rows
}

func everyRow(t *testing.T, log chat.Log, room string) (all []chat.Row) {
	t.Helper()
	for {
		rows := mustAfter(t, log, room, int64(len(all)), 1000)
		if len(rows) == 0 {
			return all
		}
		all = append(all, rows...)
	}
}

func wantSeqs(t *testing.T, what string, rows []chat.Row, want ...int64) {
	t.Helper()
	got := make([]int64, len(rows))
	for i, r := range rows {
		got[i] = r.Seq
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: got seqs %v, want %v", what, got, want)
	}
}

func appendNumbers(t *testing.T, log chat.Log) {
	wantSeqs(t, "first append", mustAppend(t, log, "7", 0, lines("a", 3)...), 1, 2, 3)
	wantSeqs(t, "second append", mustAppend(t, log, "7", 3, lines("b", 2)...), 4, 5)
	wantSeqs(t, "another room", mustAppend(t, log, "8", 0, lines("c", 1)...), 1)
	wantSeqs(t, "read back", mustAfter(t, log, "7", 0, 10), 1, 2, 3, 4, 5)
	if log.ID() == "" {
		t.Error("a log has an id")
	}
}

func fieldsComeBack(t *testing.T, log chat.Log) {
	started := time.Date(2026, 11, 22, 9, 59, 0, 0, time.UTC)
	line := Line("01JD0000000000000000000001", `한마디 "quoted" \ 👩‍👩‍👧‍👦 <b>`)
	line.Details = chat.Details{Role: chat.RolePresenter, Attrs: json.RawMessage(`{"badge":"별"}`),
		Reply: &chat.Reply{Seq: 1, Nickname: "바다", Text: "안녕"}}
	bare := Line("01JD0000000000000000000002", "그냥 한 줄")
	cast := chat.Row{ID: "01JD0000000000000000000003", Idem: "01JD0000000000000000000003", Kind: chat.KindBroadcast, Broadcast: "881",
		At: line.At, Details: chat.Details{State: chat.BroadcastStarted, Title: "제목", StartedAt: &started}, Staff: chat.StaffDetails{Reason: "r"}}
	link := chat.Row{ID: "01JD0000000000000000000004", Idem: "x", Kind: chat.KindLink, At: line.At,
		User: chat.Author{ID: "7", Nickname: "방송"}, Staff: chat.StaffDetails{Session: "S1"}}
	want := []chat.Row{line, bare, cast, link}
	stored := mustAppend(t, log, "7", 0, want...)
	for i := range want {
		want[i].Room, want[i].Seq = "7", int64(i+1)
	}
	if !reflect.DeepEqual(stored, want) {
		t.Errorf("append returned\n%+v, want\n%+v", stored, want)
	}
	if got := mustAfter(t, log, "7", 0, 10); !reflect.DeepEqual(got, want) {
		t.Errorf("read back\n%+v, want\n%+v", got, want)
	}
	if got, found, err := log.ByIdem(t.Context(), "7", "x"); err != nil || !found || !reflect.DeepEqual(got, want[3]) {
		t.Errorf("by idem: got %+v %v %v, want %+v", got, found, err, want[3])
	}
}

func appendBehind(t *testing.T, log chat.Log) {
	mustAppend(t, log, "7", 0, lines("a", 3)...)
	_, err := log.Append(t.Context(), "7", 1, lines("b", 1))
	var behind *chat.BehindError
	if !errors.As(err, &behind) {
		t.Fatalf("append after 1 of 3: got %v, want BehindError", err)
	}
	if len(behind.Rows) == 0 || behind.Rows[0].Seq != 2 {
		t.Errorf("the rows that the caller lacks: got %+v, want those from seq 2", behind.Rows)
	}
	if _, err := log.Append(t.Context(), "7", 9, lines("c", 1)); !errors.As(err, &behind) {
		t.Errorf("append beyond the end: got %v, want BehindError", err)
	}
	wantSeqs(t, "after refused appends", mustAfter(t, log, "7", 0, 10), 1, 2, 3)
}

func allOrNone(t *testing.T, log chat.Log) {
	mustAppend(t, log, "7", 0, Line("a", "하나"))
	rows := append(lines("b", 3), Line("a", "둘"))
	var dup *chat.DuplicateError
	if _, err := log.Append(t.Context(), "7", 1, rows); !errors.As(err, &dup) {
		t.Fatalf("append with a used idem at its end: got %v, want DuplicateError", err)
	}
	wantSeqs(t, "after the refused append", mustAfter(t, log, "7", 0, 10), 1)
	wantSeqs(t, "the next append", mustAppend(t, log, "7", 1, lines("b", 3)...), 2, 3, 4)
}

func duplicateIdem(t *testing.T, log chat.Log) {
	first := Line("id-1", "하나")
	first.Idem = "key"
	mustAppend(t, log, "7", 0, first)
	again := Line("id-2", "둘")
	again.Idem = "key"
	var dup *chat.DuplicateError
	if _, err := log.Append(t.Context(), "7", 1, []chat.Row{again}); !errors.As(err, &dup) || dup.Row.ID != "id-1" || dup.Row.Text != "하나" {
		t.Errorf("same idem again: got %v, want DuplicateError with the first row", err)
	}
	mustAppend(t, log, "8", 0, Line("id-3", "셋")) // the same key in another room is another key
	again.ID = "id-4"
	mustAppend(t, log, "8", 1, again)
	if _, found, err := log.ByIdem(t.Context(), "7", "nothing"); found || err != nil {
		t.Errorf("an unused idem: found=%v err=%v, want neither", found, err)
	}
}

func timeMonotonic(t *testing.T, log chat.Log) {
	late, early := Line("a", "늦은"), Line("b", "이른")
	early.At = late.At.Add(-time.Hour)
	mustAppend(t, log, "7", 0, late)
	if got := mustAppend(t, log, "7", 1, early)[0].At; !got.Equal(late.At) {
		t.Errorf("a clock that went back: stored at %v, want %v", got, late.At)
	}
	two := lines("c", 2)
	two[0].At, two[1].At = late.At.Add(2*time.Second), late.At.Add(time.Second)
	stored := mustAppend(t, log, "7", 2, two...)
	if stored[1].At.Before(stored[0].At) {
		t.Errorf("within one append: %v then %v", stored[0].At, stored[1].At)
	}
	if got := mustAfter(t, log, "7", 3, 1)[0].At; !got.Equal(stored[1].At) {
		t.Errorf("read back %v, appended %v", got, stored[1].At)
	}
	other := early
	other.ID, other.Idem = "d", "d"
	if got := mustAppend(t, log, "8", 0, other)[0].At; !got.Equal(early.At) {
		t.Errorf("another room has a time of its own: got %v, want %v", got, early.At)
	}
}

func pages(t *testing.T, log chat.Log) {
	mustAppend(t, log, "7", 0, lines("a", 10)...)
	mustAppend(t, log, "70", 0, lines("x", 3)...) // a name that the first is a prefix of
	wantSeqs(t, "after 0, 3", mustAfter(t, log, "7", 0, 3), 1, 2, 3)
	wantSeqs(t, "after 7, 10", mustAfter(t, log, "7", 7, 10), 8, 9, 10)
	wantSeqs(t, "after the end", mustAfter(t, log, "7", 10, 10))
	wantSeqs(t, "after beyond the end", mustAfter(t, log, "7", 99, 10))
	wantSeqs(t, "an unknown room", mustAfter(t, log, "nobody", 0, 10))
	for _, c := range []struct {
		before int64
		limit  int
		want   []int64
	}{{0, 2, []int64{9, 10}}, {5, 2, []int64{3, 4}}, {3, 10, []int64{1, 2}}, {1, 10, nil}, {99, 1, []int64{10}}} {
		rows, err := log.Before(t.Context(), "7", c.before, c.limit)
		if err != nil {
			t.Fatal(err)
		}
		wantSeqs(t, fmt.Sprintf("before %d, %d", c.before, c.limit), rows, c.want...)
	}
}

func broadcast(id, state string) chat.Row {
	return chat.Row{ID: id, Idem: id, Kind: chat.KindBroadcast, Broadcast: "B", At: time.Unix(1, 0).UTC(), Details: chat.Details{State: state}}
}

func marks(t *testing.T, log chat.Log) {
	mustAppend(t, log, "7", 0, broadcast("s", chat.BroadcastStarted))
	mustAppend(t, log, "7", 1, lines("a", 4)...)
	mustAppend(t, log, "7", 5, broadcast("e", chat.BroadcastEnded))
	mustAppend(t, log, "7", 6, lines("b", 2)...)
	for _, c := range []struct {
		after int64
		want  []int64
	}{{0, []int64{1, 6}}, {1, []int64{6}}, {6, nil}} {
		got, last, err := log.Marks(t.Context(), "7", c.after)
		if err != nil {
			t.Fatal(err)
		}
		wantSeqs(t, fmt.Sprintf("marks after %d", c.after), got, c.want...)
		if last.Seq != 8 || last.Text == "" {
			t.Errorf("last row: got %+v, want seq 8", last)
		}
	}
	if got, last, err := log.Marks(t.Context(), "nobody", 0); err != nil || len(got) != 0 || last.Seq != 0 {
		t.Errorf("marks of an empty room: %v %+v %v", got, last, err)
	}
}

func heads(t *testing.T, log chat.Log) {
	mustAppend(t, log, "a", 0, lines("a", 3)...)
	mustAppend(t, log, "b", 0, lines("b", 1)...)
	got, err := log.Heads(t.Context(), []string{"a", "b", "nobody"})
	if want := map[string]int64{"a": 3, "b": 1}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("heads: got %v %v, want %v", got, err, want)
	}
	if got, err := log.Heads(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("heads of no rooms: got %v %v", got, err)
	}
}

func live(t *testing.T, log chat.Log) {
	mustAppend(t, log, "on", 0, broadcast("1", chat.BroadcastStarted))
	mustAppend(t, log, "on", 1, lines("l", 2)...)
	mustAppend(t, log, "off", 0, broadcast("2", chat.BroadcastStarted), broadcast("3", chat.BroadcastEnded))
	mustAppend(t, log, "again", 0, broadcast("4", chat.BroadcastStarted), broadcast("5", chat.BroadcastEnded), broadcast("6", chat.BroadcastStarted))
	mustAppend(t, log, "never", 0, lines("n", 1)...)
	got, err := log.Live(t.Context())
	if want := []string{"again", "on"}; err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("live rooms: got %v %v, want %v", got, err, want)
	}
}

// appendersRace is several nodes writing to one room, each at the position
// that it believes to be the end.
func appendersRace(t *testing.T, log chat.Log) {
	const writers, each = 6, 15
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			after := int64(0)
			for i := 0; i < each; {
				stored, err := log.Append(t.Context(), "7", after, []chat.Row{Line(fmt.Sprintf("w%d-%d", w, i), "줄")})
				var behind *chat.BehindError
				switch {
				case err == nil:
					after = stored[0].Seq
					i++
				case errors.As(err, &behind) && len(behind.Rows) > 0:
					after = behind.Rows[len(behind.Rows)-1].Seq
				default:
					t.Errorf("writer %d at %d: %v", w, after, err)
					return
				}
			}
		})
	}
	wg.Wait()
	rows := everyRow(t, log, "7")
	if len(rows) != writers*each {
		t.Fatalf("got %d rows, want %d", len(rows), writers*each)
	}
	next := map[string]int{}
	for i, row := range rows {
		if row.Seq != int64(i+1) {
			t.Fatalf("row %d has seq %d", i, row.Seq)
		}
		var w, n int
		if _, err := fmt.Sscanf(row.ID, "w%d-%d", &w, &n); err != nil {
			t.Fatal(err)
		}
		key := row.ID[:2]
		if n != next[key] {
			t.Fatalf("writer %s: row %d came where %d was due", key, n, next[key])
		}
		next[key]++
	}
}

func readersSeePrefixes(t *testing.T, log chat.Log) {
	const total = 60
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			var cursor int64
			for cursor < total && ctx.Err() == nil {
				rows, err := log.After(t.Context(), "7", cursor, 7)
				if err != nil {
					t.Errorf("read after %d: %v", cursor, err)
					return
				}
				for _, row := range rows {
					if row.Seq != cursor+1 {
						t.Errorf("after %d came %d", cursor, row.Seq)
						return
					}
					cursor = row.Seq
				}
			}
		})
	}
	for i := int64(0); i < total; i += 3 {
		mustAppend(t, log, "7", i, lines(fmt.Sprint("r", i), 3)...)
	}
	time.AfterFunc(15*time.Second, stop)
	wg.Wait()
	if ctx.Err() != nil {
		t.Error("readers did not reach the end")
	}
	stop()
}

func cancelled(t *testing.T, log chat.Log) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := log.Append(ctx, "7", 0, lines("a", 1))
	there := len(mustAfter(t, log, "7", 0, 10))
	switch {
	case err == nil && there == 1:
	case errors.Is(err, chat.ErrLogUnavailable) && there == 0:
	case errors.Is(err, chat.ErrOutcomeUnknown): // either is right; a later read says which
	default:
		t.Errorf("append with a cancelled context: %v with %d rows logged", err, there)
	}
}
