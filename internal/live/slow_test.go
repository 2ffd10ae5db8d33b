package live

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

func TestAPageThatDoesNotReadIsClosedAndLosesNothing(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		stuck := r.connect(dialing{})
		stuck.deafen()
		r.grow("7", 900)
		r.nodes[0].hub.Nudge("7", r.head("7"))
		r.pass(60*time.Second - time.Millisecond)
		if linked, _ := r.nodes[0].hub.Linked("7"); !linked {
			t.Error("before 60 s without progress: the link has gone")
		}
		r.pass(time.Millisecond)
		r.wantNoSessions("after 60 s without progress")
		r.wantCloses("too_slow", 1)

		stuck.listen()
		r.pass(0)
		if end, closed := stuck.closed(); !closed || end.code != 1006 {
			t.Errorf("the page sees %v, %v; want the bare end, 1006, as nothing could be written", end, closed)
		}
		head := stuck.cursor()
		if head >= 900 {
			t.Errorf("the stuck page has got %d rows, want it stuck", head)
		}
		again := r.connect(dialing{after: &head})
		again.wantRun("with its cursor", head+1, r.head("7"))
	})
}

func TestAPageThatReadsSlowlyIsNotClosed(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		slow := r.connect(dialing{pause: 10 * time.Second})
		r.grow("7", 900)
		r.nodes[0].hub.Nudge("7", r.head("7"))
		r.pass(30 * time.Minute)
		slow.wantOpen("after half an hour")
		slow.wantRun("after half an hour", 1, 902)
	})
}

// TestStuckLinksCostNoMemory has ten links whose pages do not read while 10,000
// rows come in: no goroutine but the one that writes, no row kept for later.
func TestStuckLinksCostNoMemory(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		const links, rows = 10, 1000
		hub := r.nodes[0].hub
		var all []*client
		for i := range links {
			c := r.connect(dialing{user: fmt.Sprint(i)})
			c.deafen()
			all = append(all, c)
		}
		before := runtime.NumGoroutine()
		for _, c := range all {
			r.grow(c.room, rows)
		}
		for i := range rows {
			for _, c := range all {
				hub.Nudge(c.room, 2+int64(i)+1)
			}
		}
		synctest.Wait()
		if got := runtime.NumGoroutine(); got > before+links {
			t.Errorf("%d goroutines before the rows, %d after; want one more per link at most", before, got)
		}
		hub.frames.mu.Lock()
		kept := maps.Clone(hub.frames.recent)
		hub.frames.mu.Unlock()
		if got := len(kept); got > links {
			t.Errorf("%d frames are kept for %d rooms", got, links)
		}
		for room, all := range kept {
			if len(all) > recentFrames {
				t.Errorf("room %s keeps %d frames", room, len(all))
			}
			for _, m := range all {
				if len(m.frame.data) > wire.MaxEventsFrame {
					t.Errorf("room %s keeps a frame of %d bytes", room, len(m.frame.data))
				}
			}
		}
		r.pass(time.Minute)
		r.wantNoSessions("after 60 s without progress")
		for _, c := range all {
			c.drop()
		}
		r.pass(0)
		cursor := all[3].cursor()
		again := r.connect(dialing{user: "3", after: &cursor})
		again.wantRun("with its cursor", cursor+1, r.head("3"))
	})
}

func TestTheSlowTimerMakesUpForALostNudge(t *testing.T) {
	for name, say := range map[string]func(*rig){
		"a nudge that is lost":            func(r *rig) { r.say("7", "아무도 모르게") },
		"a row that another process logs": func(r *rig) { r.fill("7", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				c := r.connect(dialing{})
				r.pass(time.Second) // past the timer's first second
				r.presence.lose(func() bool { return true })
				say(r)
				r.pass(0)
				c.wantRun("at once", 1, 2)
				r.pass(10 * time.Second)
				c.wantRun("10 s later", 1, 3)
			})
		})
	}
}

// flaky is a log that cannot be read for a while.
type flaky struct {
	chat.Log
	down  atomic.Bool
	reads atomic.Int64 // of rows
}

func (f *flaky) fails() error {
	if f.down.Load() {
		return fmt.Errorf("%w: the store is away", chat.ErrLogUnavailable)
	}
	return nil
}

func (f *flaky) After(ctx context.Context, room string, after int64, limit int) ([]chat.Row, error) {
	f.reads.Add(1)
	if err := f.fails(); err != nil {
		return nil, err
	}
	return f.Log.After(ctx, room, after, limit)
}

func (f *flaky) Marks(ctx context.Context, room string, after int64) ([]chat.Row, chat.Row, error) {
	if err := f.fails(); err != nil {
		return nil, chat.Row{}, err
	}
	return f.Log.Marks(ctx, room, after)
}

func (f *flaky) Heads(ctx context.Context, rooms []string) (map[string]int64, error) {
	if err := f.fails(); err != nil {
		return nil, err
	}
	return f.Log.Heads(ctx, rooms)
}

func TestALinkStaysWhileTheLogCannotBeRead(t *testing.T) {
	for name, rows := range map[string]int64{"some rows behind": 300, "so far behind that it is skipped ahead": 2100} {
		t.Run(name, func(t *testing.T) {
			log := &flaky{Log: newTall()}
			inBubble(t, setup{log: log}, func(t *testing.T, r *rig) {
				c := r.connect(dialing{})
				r.grow("7", rows)
				head := r.head("7")
				log.down.Store(true)
				before := log.reads.Load()
				r.nodes[0].hub.Nudge("7", head)
				r.pass(10 * time.Minute)
				c.wantOpen("after ten minutes without the log")
				c.wantRun("after ten minutes without the log", 1, 2)
				if got := log.reads.Load() - before; got > 1 {
					t.Errorf("the log was read %d times for one nudge, want once", got)
				}
				log.down.Store(false)
				r.pass(10 * time.Second)
				if got := c.cursor(); got != head {
					t.Errorf("10 s after the log is back: the page has rows up to %d, want %d", got, head)
				}
				c.wantOpen("after it")
			})
		})
	}
}

func TestALinkThatCannotTakeItsRoomIsToldToComeAgain(t *testing.T) {
	log := &flaky{Log: newTall()}
	log.down.Store(true)
	inBubble(t, setup{log: log}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		told := c.wantClosed("while the log is away", wire.CloseInternal, chat.LogUnavailable)
		if told.RetryAfterS < 1 {
			t.Errorf("told to wait %d s, want at least 1", told.RetryAfterS)
		}
		if got := r.nodes[0].gone.Load(); got != 1 {
			t.Errorf("OnGone was called %d times, want once: a broadcast may stand in the log with no link", got)
		}
		log.down.Store(false)
		r.connect(dialing{}).wantRun("when it is back", 1, 2)
	})
}

// TestALinkThatIsSkippedAheadHeedsWhatItSkips: rows about the link itself may
// stand among those that no page needs.
func TestALinkThatIsSkippedAheadHeedsWhatItSkips(t *testing.T) {
	skipped := func(t *testing.T, r *rig, c *client) {
		t.Helper()
		r.grow("7", 2100)
		r.pass(10 * time.Second) // the slow timer
		if got := len(framesOf[wire.Skipped](c)); got != 1 {
			t.Errorf("got %d frames that skip, want 1", got)
		}
	}
	lost := func() bool { return true }
	t.Run("a newer link", func(t *testing.T) {
		inBubble(t, setup{nodes: 2}, func(t *testing.T, r *rig) {
			c := r.connect(dialing{})
			r.presence.lose(lost)
			newer := r.connect(dialing{node: 1})
			skipped(t, r, c)
			c.wantClosed("skipped over a newer link", wire.CloseReplaced, chat.LinkReplaced)
			newer.wantOpen("the newer link")
		})
	})
	t.Run("the end of the broadcast", func(t *testing.T) {
		inBubble(t, setup{}, func(t *testing.T, r *rig) {
			c := r.connect(dialing{})
			r.presence.lose(lost)
			r.endBroadcast("7")
			skipped(t, r, c)
			r.pass(61 * time.Second)
			c.wantClosed("skipped over the end", wire.CloseBroadcastEnded, chat.BroadcastEndedCode)
		})
	})
	t.Run("the start of the next one", func(t *testing.T) {
		inBubble(t, setup{}, func(t *testing.T, r *rig) {
			c := r.connect(dialing{})
			r.endBroadcast("7")
			r.pass(time.Second)
			r.presence.lose(lost)
			r.startBroadcast("7", "next")
			skipped(t, r, c)
			r.pass(time.Hour)
			c.wantOpen("skipped over the start")
		})
	})
}
