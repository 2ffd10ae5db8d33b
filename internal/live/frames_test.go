package live

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/wire"
)

func newFrames(t *testing.T, log chat.Log) *frames {
	t.Helper()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return &frames{log: log, key: key, recent: map[string][]*framing{}}
}

func (f *frames) mustAfter(t *testing.T, room string, after, head int64) frame {
	t.Helper()
	got, err := f.after(t.Context(), room, after, head)
	if err != nil {
		t.Fatalf("frame after %d of room %s: %v", after, room, err)
	}
	return got
}

// same reports whether two frames are one and the same bytes in memory.
func same(a, b frame) bool { return len(a.data) > 0 && &a.data[0] == &b.data[0] }

func TestAFrameIsSignedOnceForAllWhoStandAtTheSamePlace(t *testing.T) {
	log := &flaky{Log: newTall()}
	fill(t, log, "7", 3)
	f := newFrames(t, log)
	first := f.mustAfter(t, "7", 0, 3)
	if second := f.mustAfter(t, "7", 0, 3); !same(first, second) || log.reads.Load() != 1 {
		t.Errorf("the second session got another frame, or the log was read %d times; want one frame, one read", log.reads.Load())
	}
	if elsewhere := f.mustAfter(t, "7", 1, 3); same(first, elsewhere) || elsewhere.after != 1 {
		t.Errorf("a session at 1 got the frame after %d", elsewhere.after)
	}
	if other := f.mustAfter(t, "8", 0, 0); other.to != 0 || len(other.data) != 0 {
		t.Errorf("a room with nothing in it got a frame to %d", other.to)
	}
}

func TestAFrameIsBuiltAnewWhenTheRoomHasGrownUnlessItIsFull(t *testing.T) {
	log := newTall()
	fill(t, log, "7", 3)
	f := newFrames(t, log)
	short := f.mustAfter(t, "7", 0, 3)
	fill(t, log, "7", 1)
	if grown := f.mustAfter(t, "7", 0, 4); grown.to != 4 || same(short, grown) {
		t.Errorf("the room has 4 rows, the frame goes to %d", grown.to)
	}
	log.grow(t, "8", 500)
	full := f.mustAfter(t, "8", 0, 500)
	if !full.full || full.to > 100 {
		t.Fatalf("of 500 rows a frame goes to %d, full: %v; want it full", full.to, full.full)
	}
	if again := f.mustAfter(t, "8", 0, 9999); !same(full, again) {
		t.Error("a full frame was built anew, though it would be the same however far the room grows")
	}
}

func TestAFrameForThoseWhoAreToldTogetherEndsAtTheHeadTheyWereTold(t *testing.T) {
	log := newTall()
	fill(t, log, "7", 5)
	f := newFrames(t, log)
	for _, after := range []int64{0, 1, 2} { // wherever they come from
		if got, err := f.upTo(t.Context(), "7", after, 3); err != nil || got.to != 3 {
			t.Errorf("after %d: the frame goes to %d, %v; want 3, though the room has 5 rows", after, got.to, err)
		}
	}
	if again := f.mustAfter(t, "7", 2, 3); again.to != 3 {
		t.Errorf("a link at the same place got another frame, to %d", again.to)
	}
}

// laggard is a log that takes a second to read, and may fail then.
type laggard struct {
	*flaky
}

func (l laggard) After(ctx context.Context, room string, after int64, limit int) ([]chat.Row, error) {
	time.Sleep(time.Second)
	return l.flaky.After(ctx, room, after, limit)
}

func TestAFrameInTheMakingIsWaitedFor(t *testing.T) {
	for name, down := range map[string]bool{"and shared": false, "and its failure told once": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &flaky{Log: newTall()}
				fill(t, log, "7", 3)
				f := newFrames(t, laggard{log})
				log.down.Store(down)
				var failures, frames atomic.Int64
				for i := range 50 {
					go func() {
						time.Sleep(time.Duration(i) * time.Millisecond)
						got, err := f.upTo(t.Context(), "7", 0, 3)
						if err != nil {
							failures.Add(1)
						}
						if got.to == 3 {
							frames.Add(1)
						}
					}()
				}
				time.Sleep(1500 * time.Millisecond)
				synctest.Wait()
				want := map[bool][3]int64{false: {1, 0, 50}, true: {1, 1, 0}}[down]
				if got := [3]int64{log.reads.Load(), failures.Load(), frames.Load()}; got != want {
					t.Errorf("reads, failures, frames: got %v, want %v", got, want)
				}
				log.down.Store(false)
				if got := f.mustAfter(t, "7", 0, 3); got.to != 3 {
					t.Errorf("asked again: a frame to %d, want 3", got.to)
				}
			})
		})
	}
}

func TestFewFramesOfARoomAreKept(t *testing.T) {
	log := newTall()
	fill(t, log, "7", 20)
	f := newFrames(t, log)
	for after := range int64(20) {
		f.mustAfter(t, "7", after, 20)
	}
	if got := len(f.recent["7"]); got != recentFrames {
		t.Errorf("got %d frames, want %d", got, recentFrames)
	}
}

func TestOldFramesAreDropped(t *testing.T) {
	log := newTall()
	fill(t, log, "7", 1)
	fill(t, log, "8", 1)
	f := newFrames(t, log)
	f.mustAfter(t, "7", 0, 1)
	f.recent["7"][0].begun = time.Now().Add(-time.Minute)
	f.mustAfter(t, "8", 0, 1)
	f.keep(time.Now().Add(-time.Second))
	if _, kept := f.recent["7"]; kept || len(f.recent["8"]) != 1 {
		t.Errorf("got %v; want 8's frame and not that of 7", f.recent)
	}
}

func TestAFrameIsTheSameBytesOnEveryNode(t *testing.T) {
	log := newTall()
	fill(t, log, "7", 5)
	a := newFrames(t, log)
	b := &frames{log: log, key: a.key, recent: map[string][]*framing{}}
	if one, two := a.mustAfter(t, "7", 2, 5), b.mustAfter(t, "7", 2, 5); !bytes.Equal(one.data, two.data) {
		t.Errorf("one node signs %s, another %s", one.data, two.data)
	}
}

// worst is what n code points can be filled with so that they take the most
// bytes on the wire: of all characters that a cleaned text may hold.
func worst(n int) string {
	longest, most := "", 0
	for _, s := range []string{`"`, `\`, "😀", "<", "&", "\u007f", "\ufffd", "힣", "\U0010fffd", "\u2028"} {
		if size := onTheWire(s); size > most {
			longest, most = s, size
		}
	}
	return strings.Repeat(longest, n)
}

// onTheWire is how many bytes a text takes as JSON in a string of JSON.
func onTheWire(s string) int {
	event, err := encodeJSON(chat.Event{Text: s})
	if err != nil {
		panic(err)
	}
	empty, _ := encodeJSON(chat.Event{})
	return wire.EscapedLen(event) - wire.EscapedLen(empty)
}

// largestRow is a line at every bound there is.
func largestRow(text string) chat.Row {
	id := strings.Repeat("x", 64)
	attrs := `{"a":"` + strings.Repeat(`\"`, (chat.MaxAttrs-len(`{"a":""}`))/2) + `"}`
	row := lineOf(wire.MaxSeq)
	row.ID, row.Room, row.Seq, row.Broadcast = strings.Repeat("0", 26), id, wire.MaxSeq, id
	row.User = chat.Author{ID: id, Nickname: worst(40)}
	row.Text = text
	row.Details = chat.Details{Role: chat.RolePresenter, Attrs: json.RawMessage(attrs),
		Reply: &chat.Reply{Seq: wire.MaxSeq, Nickname: worst(40), Text: worst(chat.MaxExcerptRunes)}}
	return row
}

// TestLargestEventFits is what build relies on: one event always fits.
func TestLargestEventFits(t *testing.T) {
	mixed := strings.Repeat(`"`, 167) + strings.Repeat(`\`, 167) + strings.Repeat("😀", 166)
	for name, text := range map[string]string{
		"quotes": strings.Repeat(`"`, 500), "backslashes": strings.Repeat(`\`, 500), "emoji": strings.Repeat("😀", 500),
		"line separators, which a clean text has not": strings.Repeat("\u2028", 500), "a mixture": mixed, "the worst": worst(500),
	} {
		t.Run(name, func(t *testing.T) {
			log := newTall()
			f := newFrames(t, longID{log})
			row := largestRow(text)
			built, err := f.build(row.Room, []chat.Row{row})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("one event makes a frame of %d bytes, of %d", len(built.data), wire.MaxEventsFrame)
			if len(built.data) > wire.MaxEventsFrame {
				t.Errorf("%s: a frame of %d bytes, want at most %d", name, len(built.data), wire.MaxEventsFrame)
			}
			decoded, err := wire.DecodeServer(built.data)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var p payload
			if err := json.Unmarshal([]byte(decoded.(wire.Events).Payload), &p); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(p.Events) != 1 || p.Events[0].Text != text {
				t.Errorf("%s: %d events, or another text came out", name, len(p.Events))
			}
		})
	}
	title := lineOf(1)
	title.Kind, title.Details = chat.KindBroadcast, chat.Details{State: chat.BroadcastStarted, Title: worst(chat.MaxTitleRunes)}
	built, err := newFrames(t, newTall()).build("7", []chat.Row{title})
	if err != nil || len(built.data) > wire.MaxEventsFrame {
		t.Errorf("the longest title: a frame of %d bytes, %v; want at most %d", len(built.data), err, wire.MaxEventsFrame)
	}
}

// longID is a log with the longest id there may be.
type longID struct{ chat.Log }

func (longID) ID() string { return strings.Repeat("L", wire.MaxLogID) }

// TestBuildFillsFramesToTheBrim packs rows of many sizes: the bound is kept, the
// announced length is the real one, and the row that did not go in would not
// have fitted.
func TestBuildFillsFramesToTheBrim(t *testing.T) {
	f := newFrames(t, newTall())
	var rows []chat.Row
	for i := range 400 {
		row := lineOf(int64(i) + 1)
		row.Seq = int64(i) + 1
		row.Text = strings.Repeat([]string{"가", `"`, "x", "😀"}[i%4], 1+(i*37)%500)
		rows = append(rows, row)
	}
	for len(rows) > 0 {
		built, err := f.build("7", rows)
		if err != nil {
			t.Fatal(err)
		}
		n := int(built.to - built.after)
		if n < 1 || len(built.data) > wire.MaxEventsFrame {
			t.Fatalf("after %d: %d rows in %d bytes, want at least one in at most %d", built.after, n, len(built.data), wire.MaxEventsFrame)
		}
		if n < len(rows) {
			event, err := encodeJSON(rows[n].Event())
			if err != nil {
				t.Fatal(err)
			}
			if whole := len(built.data) + wire.EscapedLen(event) + len(","); whole <= wire.MaxEventsFrame-len(",") || !built.full {
				t.Errorf("after %d: the next row would have made %d bytes of %d, full: %v", built.after, whole, wire.MaxEventsFrame, built.full)
			}
		} else if built.full {
			t.Error("the last frame says that it is full")
		}
		rows = rows[n:]
	}
}

func TestFramesCarryThePublicFaceAlone(t *testing.T) {
	secret := fmt.Sprintf("secret-%d", 1)
	rows := []chat.Row{
		{ID: secret, Idem: secret, Room: "7", Seq: 1, Kind: chat.KindLink, User: chat.Author{ID: secret, Nickname: secret}, Staff: chat.StaffDetails{Session: secret}},
		{ID: "B", Room: "7", Seq: 2, Kind: chat.KindBroadcast, Broadcast: "B", User: chat.Author{ID: secret}, Staff: chat.StaffDetails{Reason: secret}, Details: chat.Details{State: chat.BroadcastEnded}},
		{ID: secret, Room: "7", Seq: 3, Kind: "a-newer-kind", Text: secret, Details: chat.Details{Title: secret}},
		{ID: "M", Idem: secret, Room: "7", Seq: 4, Kind: chat.KindMessage, Text: "<안녕> & 안녕", User: chat.Author{ID: "42", Nickname: "하늘"}},
	}
	built, err := newFrames(t, newTall()).build("7", rows)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(built.data, []byte(secret)) {
		t.Errorf("the frame tells what is not public: %s", built.data)
	}
	if !bytes.Contains(built.data, []byte("<안녕> & 안녕")) {
		t.Errorf("the frame escapes for HTML, six bytes for one: %s", built.data)
	}
	var marks []int64
	for _, row := range built.marks {
		marks = append(marks, row.Seq)
	}
	if want := []int64{1, 2, 3}; !slices.Equal(marks, want) {
		t.Errorf("rows for sessions to act on: got %v, want %v", marks, want)
	}
}
