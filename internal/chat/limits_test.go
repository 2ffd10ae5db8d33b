package chat_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

// purse is limits that only count: so many lines are left, so often it was asked.
type purse struct {
	mu          sync.Mutex
	left, taken int
}

func (p *purse) Take(*chat.Draft, time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		return &chat.Refusal{Code: chat.RateUser, RetryAfter: time.Second}
	}
	p.left--
	p.taken++
	return nil
}

func (p *purse) Return(*chat.Draft, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left++
}

func (p *purse) Check(*chat.Draft, time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		return &chat.Refusal{Code: chat.RateUser, RetryAfter: time.Second}
	}
	return nil
}

func (p *purse) want(t *testing.T, what string, left, taken int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left != left || p.taken != taken {
		t.Errorf("%s: %d left after %d were taken, want %d after %d", what, p.left, p.taken, left, taken)
	}
}

// payingDesk has the room 7 on air and ten lines to say.
func payingDesk(t *testing.T, log chat.Log, p chat.Presence, opts chat.DeskOptions) (*chat.Desk, *purse) {
	t.Helper()
	limits := &purse{left: 10}
	opts.NewID, opts.Limits = newID, limits
	desk := chat.NewDesk(log, p, opts)
	if _, err := desk.TakeLink(t.Context(), presenter, "S1"); err != nil {
		t.Fatal(err)
	}
	limits.want(t, "a link costs no line", 10, 0)
	return desk, limits
}

func TestOnlyLoggedLinesCost(t *testing.T) {
	log := logtest.NewMemory("M")
	desk, limits := payingDesk(t, log, newPresence(), chat.DeskOptions{})
	mustSend(t, desk, keyed("하나", "k"))
	limits.want(t, "a line", 9, 1)
	mustSend(t, desk, keyed("하나", "k"))
	_, err := desk.Send(t.Context(), keyed("다른 말", "k"))
	wantCode(t, "the same key, other words", err, chat.IdempotencyMismatch)
	_, err = desk.Send(t.Context(), chat.Draft{Room: "7", User: viewer, Text: "x", ReplyTo: 99})
	wantCode(t, "a reply to nothing", err, chat.ReplyNotFound)
	_, err = desk.Send(t.Context(), chat.Draft{Room: "8", User: viewer, Text: "x"})
	wantCode(t, "not live", err, chat.BroadcastEndedCode)
	limits.want(t, "repeated and refused ones", 9, 1)

	limits.left = 0
	_, err = desk.Send(t.Context(), line("넘친다"))
	wantCode(t, "none is left", err, chat.RateUser)
	if again := mustSend(t, desk, keyed("하나", "k")); again.Row.Text != "하나" {
		t.Errorf("none is left, and the same key got %+v", again.Row)
	}
	if rows := rowsOf(t, log, "7"); len(rows) != 3 {
		t.Errorf("%d rows, want the broadcast's, the link's and one line's", len(rows))
	}
}

func TestWhatTheLogDoesToTheCost(t *testing.T) {
	for name, c := range map[string]struct {
		written bool
		err     error
		left    int
	}{
		"surely not logged":        {false, fmt.Errorf("%w: disk", chat.ErrLogUnavailable), 10},
		"perhaps logged, and not":  {false, fmt.Errorf("%w: cut", chat.ErrOutcomeUnknown), 9},
		"perhaps logged, and yes":  {true, fmt.Errorf("%w: cut", chat.ErrOutcomeUnknown), 9},
		"failed in an unknown way": {false, errors.New("a driver's own words"), 10},
	} {
		log := logtest.NewMemory("M")
		desk, limits := payingDesk(t, log, newPresence(), chat.DeskOptions{})
		log.FailWith(func(string, []chat.Row) (bool, error) { return c.written, c.err })
		if _, err := desk.Send(t.Context(), keyed("한 번", "k")); err == nil {
			t.Errorf("%s: no error", name)
		}
		limits.want(t, name, c.left, 1)
		log.FailWith(nil)
		mustSend(t, desk, keyed("한 번", "k"))
		taken := 2
		if c.written {
			taken = 1
		}
		limits.want(t, name+", and asked again", c.left+1-taken, taken)
	}
}

// blind is a log that another node writes to at the same time: a look for a key
// comes too early.
type blind struct{ *logtest.Memory }

func (blind) ByIdem(context.Context, string, string) (chat.Row, bool, error) {
	return chat.Row{}, false, nil
}

func TestLineThatAnotherNodeLoggedCostsNothing(t *testing.T) {
	log := logtest.NewMemory("M")
	desk, limits := payingDesk(t, blind{log}, newPresence(), chat.DeskOptions{})
	first := mustSend(t, newDesk(log, newPresence()), keyed("한 번", "k"))
	if got := mustSend(t, desk, keyed("한 번", "k")); got.Row.ID != first.Row.ID {
		t.Errorf("got %+v, want the other node's row", got.Row)
	}
	limits.want(t, "logged by another node", 10, 1)
}

func TestLineIsPaidOnceHoweverOftenItIsJudged(t *testing.T) {
	log := logtest.NewMemory("M")
	desk, limits := payingDesk(t, log, newPresence(), chat.DeskOptions{})
	other := newDesk(log, newPresence())
	mustSend(t, other, line("다른 노드에서"))
	mustSend(t, desk, line("뒤늦게"))
	limits.want(t, "judged again behind another's line", 9, 1)
	if _, err := other.EndBroadcast(t.Context(), "7", operator, "operator", nil); err != nil {
		t.Fatal(err)
	}
	_, err := desk.Send(t.Context(), line("너무 늦게"))
	wantCode(t, "judged again behind the end", err, chat.BroadcastEndedCode)
	limits.want(t, "refused in the second judgement", 9, 2)
}

// An asker who gives up is told that the outcome is unknown. When it is known
// at last, the line's cost comes back, or its key gives the answer.
func TestCostAndKeyOfAnAskerWhoGaveUp(t *testing.T) {
	for _, fails := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			log := hold()
			desk, limits := payingDesk(t, log, newPresence(), chat.DeskOptions{})
			var wg sync.WaitGroup
			var gaveUp error
			wg.Go(func() { _, gaveUp = desk.Send(t.Context(), keyed("가는 중", "k")) })
			wg.Wait()
			wantCode(t, "after the deadline", gaveUp, chat.LogOutcomeUnknown)
			limits.want(t, "while nobody knows", 9, 1)
			_, err := desk.Send(t.Context(), keyed("가는 중", "k"))
			wantCode(t, "the same key, while nobody knows", err, chat.IdempotencyInFlight)
			if fails {
				log.FailWith(func(string, []chat.Row) (bool, error) { return false, chat.ErrLogUnavailable })
			}
			close(log.let)
			desk.Close()
			log.FailWith(nil)
			left := 9
			if fails {
				left = 10
			}
			limits.want(t, "once it is known", left, 1)
			mustSend(t, desk, keyed("가는 중", "k"))
			limits.want(t, "asked again", 9, map[bool]int{true: 2, false: 1}[fails])
			if rows := rowsOf(t, log, "7"); len(rows) != 3 {
				t.Errorf("%d rows, want 3: the line once", len(rows))
			}
		})
	}
}

// A request that left the queue, or never got into it, lets its key go.
func TestKeyOfARequestThatWasNeverTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := hold()
		desk, limits := payingDesk(t, log, newPresence(), chat.DeskOptions{MaxQueued: 1})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = desk.Send(t.Context(), line("가는 중")) })
		<-log.arrived
		var waited error
		wg.Go(func() { _, waited = desk.Send(t.Context(), keyed("기다리는 중", "a")) })
		synctest.Wait()
		for range 2 {
			_, err := desk.Send(t.Context(), keyed("못 기다린다", "b"))
			wantCode(t, "the queue is full", err, chat.Overloaded)
		}
		wg.Wait()
		wantCode(t, "waited in vain", waited, chat.LogUnavailable)
		close(log.let)
		desk.Close()
		mustSend(t, desk, keyed("기다리는 중", "a"))
		mustSend(t, desk, keyed("못 기다린다", "b"))
		limits.want(t, "three lines", 7, 3)
	})
}

// A key whose lookup fails may have been used before: "surely not logged" would
// be a lie.
func TestKeyThatCannotBeLookedUp(t *testing.T) {
	log := &unreadable{Memory: logtest.NewMemory("M")}
	desk, limits := payingDesk(t, log, newPresence(), chat.DeskOptions{})
	first := mustSend(t, desk, keyed("한 번", "k"))
	log.err = fmt.Errorf("%w: no disk", chat.ErrLogUnavailable)
	_, err := desk.Send(t.Context(), keyed("한 번", "k"))
	wantCode(t, "the log cannot be read", err, chat.LogOutcomeUnknown)
	log.err = nil
	if again := mustSend(t, desk, keyed("한 번", "k")); again.Row.ID != first.Row.ID {
		t.Errorf("again: %+v, want %+v", again.Row, first.Row)
	}
	limits.want(t, "one line", 9, 1)
}

type unreadable struct {
	*logtest.Memory
	err error
}

func (u *unreadable) ByIdem(ctx context.Context, room, idem string) (chat.Row, bool, error) {
	if u.err != nil {
		return chat.Row{}, false, u.err
	}
	return u.Memory.ByIdem(ctx, room, idem)
}

// stuck is a log whose commit hangs: whoever gives up waiting for it is told
// that the outcome is unknown, and whoever comes after it that surely nothing was
// added. The commit ends well when it is let go.
type stuck struct {
	*logtest.Memory
	hangs bool
	land  func()
}

func (s *stuck) Append(ctx context.Context, room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	switch {
	case !s.hangs:
		return s.Memory.Append(ctx, room, after, rows)
	case s.land != nil:
		return nil, fmt.Errorf("%w: no room behind it", chat.ErrLogUnavailable)
	}
	s.land = func() { _, _ = s.Memory.Append(context.WithoutCancel(ctx), room, after, rows) }
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", chat.ErrOutcomeUnknown, ctx.Err())
}

// While a line may still come to be logged, nobody who sends its key again is
// told that it surely was not.
func TestKeyIsInDoubtUntilTheLogHasMovedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &stuck{Memory: logtest.NewMemory("M")}
		desk, limits := payingDesk(t, log, newPresence(), chat.DeskOptions{})
		log.hangs = true
		_, err := desk.Send(t.Context(), keyed("한 번", "k"))
		wantCode(t, "the commit hangs", err, chat.LogOutcomeUnknown)
		desk.Close()
		for range 2 {
			_, err = desk.Send(t.Context(), keyed("한 번", "k"))
			wantCode(t, "the same key behind it", err, chat.LogOutcomeUnknown)
			desk.Close()
		}
		_, err = desk.Send(t.Context(), keyed("둘째", "l"))
		wantCode(t, "another key behind it", err, chat.LogUnavailable)
		desk.Close()
		limits.want(t, "one may be logged", 9, 4)

		log.land()
		log.hangs = false
		if got := mustSend(t, desk, keyed("한 번", "k")); got.Row.Seq != 3 {
			t.Errorf("asked again when it has landed: %+v", got.Row)
		}
		mustSend(t, desk, keyed("둘째", "l"))

		// One that never lands: once a later line has its place, it cannot.
		log.hangs, log.land = true, nil
		_, err = desk.Send(t.Context(), keyed("셋째", "m"))
		wantCode(t, "the commit hangs again", err, chat.LogOutcomeUnknown)
		desk.Close()
		log.hangs = false
		mustSend(t, desk, line("딴 말"))
		log.hangs = true
		_, err = desk.Send(t.Context(), keyed("셋째", "m"))
		wantCode(t, "its key, when another line has its place", err, chat.LogUnavailable)
		desk.Close()
	})
}

// A room is not forgotten while an append is under way that nobody waits for
// any more: a second worker would append beside the first.
func TestRoomIsKeptWhileItIsWorkedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := hold()
		desk, _ := payingDesk(t, log, newPresence(), chat.DeskOptions{MaxRooms: 1})
		_, err := desk.Send(t.Context(), line("가는 중"))
		wantCode(t, "after the deadline", err, chat.LogOutcomeUnknown)
		for i := range 10 {
			if _, err := desk.State(t.Context(), fmt.Sprint("r", i)); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = desk.Send(t.Context(), line("그 다음")) })
		synctest.Wait()
		if got := log.appends.Load(); got != 1 {
			t.Errorf("%d appends are under way in one room, want 1", got)
		}
		close(log.let)
		wg.Wait()
		desk.Close()
	})
}

func TestMaySendSaysWhatSendWould(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, p := logtest.NewMemory("M"), newPresence()
		desk, limits := payingDesk(t, log, p, chat.DeskOptions{})
		for _, c := range []struct {
			name   string
			change func()
			want   chat.Code // "": it may
		}{
			{"on air", func() {}, ""},
			{"no line is left", func() { limits.left = 0 }, chat.RateUser},
			{"some are again", func() { limits.left = 3 }, ""},
			{"the presenter is away", func() { p.leave("7"); time.Sleep(time.Minute) }, chat.PresenterGone},
			{"the broadcast has ended", func() { _, _ = desk.EndBroadcast(t.Context(), "7", operator, "operator", nil) }, chat.BroadcastEndedCode},
		} {
			c.change()
			limits.taken = 0
			head := len(rowsOf(t, log, "7"))
			var ref *chat.Refusal
			var may chat.Code
			if err := desk.MaySend(t.Context(), line("")); errors.As(err, &ref) {
				may = ref.Code
			}
			if limits.taken != 0 || len(rowsOf(t, log, "7")) != head {
				t.Errorf("%s: asking took or logged something", c.name)
			}
			var said chat.Code
			if _, err := desk.Send(t.Context(), line("말")); errors.As(err, &ref) {
				said = ref.Code
			}
			if may != c.want || said != c.want {
				t.Errorf("%s: may %q, send %q, want %q", c.name, may, said, c.want)
			}
		}
	})
}
