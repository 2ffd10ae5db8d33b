package live

import (
	"slices"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

func TestALinkIsWelcomedAndStartsAtItsBroadcastsFirstRow(t *testing.T) {
	for name, d := range map[string]dialing{
		"token in the header":      {},
		"token in the start frame": {frame: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				c := r.connect(d)
				welcome := c.welcomed()
				want := wire.Welcome{Room: "7", Log: "LOG", Head: 2, Session: welcome.Session, HeartbeatS: 25}
				if welcome != want || welcome.Session == "" {
					t.Errorf("got %+v, want %+v with a session", welcome, want)
				}
				if c.got[0] != wire.ServerFrame(welcome) {
					t.Errorf("the first frame is %#v, want the welcome", c.got[0])
				}
				r.say("7", "안녕하세요")
				r.pass(0)
				c.wantRun("after one line", 1, 3)
				if got, want := c.kinds(), []chat.Kind{chat.KindBroadcast, chat.KindHidden, chat.KindMessage}; !slices.Equal(got, want) {
					t.Errorf("the broadcast opened by the link, the link, a line: got %v, want %v", got, want)
				}
			})
		})
	}
}

// TestWhereALinkStarts has rooms that a run of the server left behind: "short"
// has 50 rows of its running broadcast, "second" has one broadcast that ended
// before it, "long" has 1,500 rows and "longer" 2,600.
func TestWhereALinkStarts(t *testing.T) {
	log := newTall()
	for room, rows := range map[string]int64{"short": 49, "second": 0, "long": 1499, "longer": 2599} {
		openBroadcast(t, log, room, "first-of-"+room)
		if rows > 0 {
			log.grow(t, room, rows)
		}
	}
	fill(t, log, "second", 29)
	openBroadcast(t, log, "second", "second-of-second") // row 31
	fill(t, log, "second", 9)

	fromStart := func(int64) int64 { return 1 }
	row := func(seq int64) func(int64) int64 { return func(int64) int64 { return seq } }
	backlogOf := func(head int64) int64 { return head - 1000 + 1 }
	for _, tt := range []struct {
		name    string
		dial    dialing
		back    int64                  // instead of dial.after: a cursor so far behind the head
		first   func(head int64) int64 // where head includes the link's own row
		skipped bool
	}{
		{name: "no cursor: the running broadcast's first row", dial: dialing{user: "short"}, first: fromStart},
		{name: "no cursor: not the broadcast before", dial: dialing{user: "second"}, first: row(31)},
		{name: "no cursor: at most 1,000 rows back", dial: dialing{user: "long"}, first: backlogOf},
		{name: "no cursor: never skipped", dial: dialing{user: "longer"}, first: backlogOf},
		{name: "cursor in the query", dial: dialing{user: "short", after: seqOf(20)}, first: row(21)},
		{name: "cursor in the frame", dial: dialing{user: "short", after: seqOf(20), frame: true}, first: row(21)},
		{name: "cursor 0", dial: dialing{user: "second", after: seqOf(0), frame: true}, first: fromStart},
		{name: "cursor of this log", dial: dialing{user: "short", after: seqOf(20), log: "LOG", frame: true}, first: row(21)},
		{name: "cursor of another log, in the query", dial: dialing{user: "short", after: seqOf(20), log: "OLD"}, first: fromStart},
		{name: "cursor of another log", dial: dialing{user: "short", after: seqOf(20), log: "OLD", frame: true}, first: fromStart},
		{name: "cursor at the end", dial: dialing{user: "short", frame: true}, back: 1, first: func(head int64) int64 { return head }},
		{name: "cursor beyond the end", dial: dialing{user: "second", after: seqOf(9999), frame: true}, first: row(31)},
		{name: "cursor more than 1,000 behind", dial: dialing{user: "long", after: seqOf(10)}, first: row(11)},
		{name: "cursor 2,000 behind", dial: dialing{user: "longer"}, back: 2000, first: func(head int64) int64 { return head - 2000 + 1 }},
		{name: "cursor 2,001 behind", dial: dialing{user: "longer"}, back: 2001, first: backlogOf, skipped: true},
		{name: "cursor far behind", dial: dialing{user: "longer", after: seqOf(10)}, first: backlogOf, skipped: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, setup{log: log}, func(t *testing.T, r *rig) {
				if tt.back > 0 {
					tt.dial.after = seqOf(r.head(tt.dial.user) + 1 - tt.back)
				}
				c := r.connect(tt.dial)
				head := r.head(tt.dial.user)
				c.wantRun("everything that follows", tt.first(head), head)
				var want []wire.Skipped
				if tt.skipped {
					want = []wire.Skipped{{To: head - 1000}}
				}
				if got := framesOf[wire.Skipped](c); !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
				if got := c.welcomed(); got.Head != head || got.Log != "LOG" {
					t.Errorf("welcome says head %d of log %q, want %d of LOG", got.Head, got.Log, head)
				}
			})
		})
	}
}

func TestLinesArriveInOrderAndOnce(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		var want []string
		for i := range 200 {
			text := string(rune('가' + i))
			want = append(want, text)
			r.say("7", text)
		}
		r.pass(0)
		if got := c.texts(); !slices.Equal(got, want) {
			t.Errorf("got lines %q, want %q", got, want)
		}
		c.wantRun("200 lines", 1, 202)
	})
}

func TestSeveralRowsShareAFrameWhenSeveralWait(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		r.grow("7", 400)
		r.nodes[0].hub.Nudge("7", r.head("7"))
		r.pass(0)
		c.wantRun("400 lines at once", 1, 402)
		// A line takes about 200 bytes here, so a frame of 14 KiB has room for 70.
		if got := len(c.sizes); got > 1+400/60 {
			t.Errorf("got %d frames of %v rows, want at most %d", got, c.sizes, 1+400/60)
		}
	})
}

func TestALinkOpensABroadcastOnlyWhereNoneRuns(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		first := r.connect(dialing{})
		first.drop()
		r.pass(0)
		second := r.connect(dialing{})
		second.wantRun("the second link of the same broadcast", 1, 3)
		if got, want := second.kinds(), []chat.Kind{chat.KindBroadcast, chat.KindHidden, chat.KindHidden}; !slices.Equal(got, want) {
			t.Errorf("one broadcast, two links: got %v, want %v", got, want)
		}
	})
}
