package chat_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

// presence is a presenter who is linked or has been gone since a moment.
type presence struct {
	mu     sync.Mutex
	gone   map[string]time.Time
	nudged map[string]int64
}

func newPresence() *presence {
	return &presence{gone: map[string]time.Time{}, nudged: map[string]int64{}}
}

func (p *presence) Linked(room string) (bool, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, gone := p.gone[room]
	return !gone, at
}

func (p *presence) Nudge(room string, head int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nudged[room] = max(p.nudged[room], head)
}

func (p *presence) leave(room string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone[room] = time.Now()
}

var ids atomic.Int64

func newID() string { return "ID" + strconv.FormatInt(ids.Add(1), 10) }

var (
	presenter = chat.User{ID: "7", Nickname: "방송자"}
	viewer    = chat.User{ID: "42", Nickname: "하늘"}
	operator  = chat.User{ID: "op", Role: chat.RoleOperator}
)

func newDesk(log chat.Log, p chat.Presence) *chat.Desk {
	return chat.NewDesk(log, p, chat.DeskOptions{NewID: newID})
}

// liveDesk has the room 7 on air.
func liveDesk(t *testing.T) (*chat.Desk, *logtest.Memory, *presence) {
	t.Helper()
	log, p := logtest.NewMemory("M"), newPresence()
	desk := newDesk(log, p)
	if _, err := desk.TakeLink(t.Context(), presenter, "S1"); err != nil {
		t.Fatal(err)
	}
	return desk, log, p
}

func line(text string) chat.Draft { return chat.Draft{Room: "7", User: viewer, Text: text} }

func keyed(text, key string) chat.Draft {
	d := line(text)
	d.Key = key
	return d
}

func wantCode(t *testing.T, what string, err error, want chat.Code) *chat.Refusal {
	t.Helper()
	var ref *chat.Refusal
	if !errors.As(err, &ref) || ref.Code != want {
		t.Fatalf("%s: got %v, want %s", what, err, want)
	}
	return ref
}

func mustSend(t *testing.T, desk *chat.Desk, d chat.Draft) chat.Receipt {
	t.Helper()
	got, err := desk.Send(t.Context(), d)
	if err != nil {
		t.Fatalf("send %q: %v", d.Text, err)
	}
	return got
}

func rowsOf(t *testing.T, log chat.Log, room string) []chat.Row {
	t.Helper()
	rows, err := log.After(t.Context(), room, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestLineIsLoggedAndSessionsAreNudged(t *testing.T) {
	desk, log, p := liveDesk(t)
	got := mustSend(t, desk, line("안녕하세요"))
	rows := rowsOf(t, log, "7")
	last := rows[len(rows)-1]
	if last.Seq != 3 || last.Text != "안녕하세요" || last.User.ID != "42" || last.User.Nickname != "하늘" || last.Broadcast != rows[0].Broadcast {
		t.Errorf("logged %+v", last)
	}
	if got.Row.ID != last.ID || !got.Linked {
		t.Errorf("receipt %+v, want the logged row, linked", got)
	}
	if p.nudged["7"] != 3 {
		t.Errorf("nudged to %d, want 3", p.nudged["7"])
	}
}

func TestRolesAndRepliesAreLogged(t *testing.T) {
	desk, _, _ := liveDesk(t)
	first := mustSend(t, desk, line(strings.Repeat("가", 200)))
	reply := chat.Draft{Room: "7", User: presenter, Text: "고마워요", ReplyTo: first.Row.Seq}
	got := mustSend(t, desk, reply).Row.Details
	if got.Role != chat.RolePresenter {
		t.Errorf("role: got %q, want presenter", got.Role)
	}
	if want := strings.Repeat("가", chat.MaxExcerptRunes-1) + "…"; got.Reply == nil || got.Reply.Text != want || got.Reply.Nickname != "하늘" {
		t.Errorf("reply: got %+v", got.Reply)
	}
	for _, to := range []int64{1, 99} { // a row that is no line, and none at all
		reply.ReplyTo = to
		_, err := desk.Send(t.Context(), reply)
		wantCode(t, fmt.Sprint("reply to ", to), err, chat.ReplyNotFound)
	}
}

func TestNothingIsSaidOutsideOfABroadcast(t *testing.T) {
	desk, log, _ := liveDesk(t)
	_, err := desk.Send(t.Context(), chat.Draft{Room: "8", User: viewer, Text: "거기 누구"})
	wantCode(t, "a room that was never live", err, chat.BroadcastEndedCode)
	if ended, err := desk.EndBroadcast(t.Context(), "7", operator, "operator", nil); !ended || err != nil {
		t.Fatalf("end: %v %v", ended, err)
	}
	_, err = desk.Send(t.Context(), line("늦었다"))
	ref := wantCode(t, "after the end", err, chat.BroadcastEndedCode)
	if got := ref.Detail(chat.Korean); got != "방송 종료되었습니다" {
		t.Errorf("the sentence: got %q", got)
	}
	rows := rowsOf(t, log, "7")
	if last := rows[len(rows)-1]; last.Kind != chat.KindBroadcast {
		t.Errorf("logged after ended: %+v", last)
	}
	if ended, err := desk.EndBroadcast(t.Context(), "7", operator, "operator", nil); ended || err != nil {
		t.Errorf("ending twice: %v %v", ended, err)
	}
}

func TestLinesQueueWhileThePresenterIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desk, _, p := liveDesk(t)
		time.Sleep(time.Minute) // so that the start is not what counts
		p.leave("7")
		time.Sleep(29 * time.Second)
		if got := mustSend(t, desk, line("기다려요")); got.Linked {
			t.Error("29 s after the link went: linked, want queued")
		}
		time.Sleep(time.Second)
		_, err := desk.Send(t.Context(), line("아직도"))
		if ref := wantCode(t, "30 s after the link went", err, chat.PresenterGone); ref.RetryAfter <= 0 {
			t.Error("it does not say when to try again")
		}
	})
}

func TestBroadcastThatJustStartedIsNotYetAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPresence()
		p.leave("7")
		time.Sleep(time.Hour)
		desk := newDesk(logtest.NewMemory("M"), p)
		if _, _, err := desk.StartBroadcast(t.Context(), "7", operator, chat.Opening{ID: "881"}); err != nil {
			t.Fatal(err)
		}
		if got := mustSend(t, desk, line("첫 줄")); got.Row.Broadcast != "881" || got.Linked {
			t.Errorf("got %+v, want broadcast 881, queued", got)
		}
	})
}

func TestStartingABroadcast(t *testing.T) {
	desk, log, _ := liveDesk(t)
	started := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	open := chat.Opening{ID: "881", Title: "제목", StartedAt: started}
	b, fresh, err := desk.StartBroadcast(t.Context(), "7", operator, open)
	if err != nil || !fresh || b.ID != "881" || b.Title != "제목" || !b.Started.Equal(started) {
		t.Errorf("start: %+v %v %v", b, fresh, err)
	}
	if again, fresh, err := desk.StartBroadcast(t.Context(), "7", operator, open); err != nil || fresh || again != b {
		t.Errorf("the same again: %+v %v %v, want %+v, not fresh", again, fresh, err, b)
	}
	var states []string
	for _, row := range rowsOf(t, log, "7") {
		if row.Kind == chat.KindBroadcast {
			states = append(states, row.Details.State)
		}
	}
	if got, want := strings.Join(states, " "), "started ended started"; got != want {
		t.Errorf("broadcast rows: got %s, want %s", got, want)
	}
	if st, err := newDesk(log, newPresence()).State(t.Context(), "7"); err != nil || st.Broadcast != b {
		t.Errorf("folded from the log: %+v %v, want %+v", st.Broadcast, err, b)
	}
}

func TestLinksAreRankedByTheirRows(t *testing.T) {
	desk, _, _ := liveDesk(t)
	mustSend(t, desk, line("사이"))
	st, err := desk.TakeLink(t.Context(), presenter, "S2")
	if err != nil || st.Link.Session != "S2" || st.Link.Seq != 4 || st.Seq != 4 {
		t.Errorf("second link: %+v %v; want session S2 at seq 4", st, err)
	}
}

func TestSameKeyGetsTheFirstAnswer(t *testing.T) {
	desk, log, _ := liveDesk(t)
	first := mustSend(t, desk, keyed("한 번", "k"))
	if again := mustSend(t, desk, keyed("한 번", "k")); again.Row.ID != first.Row.ID || again.Row.Seq != first.Row.Seq {
		t.Errorf("again: %+v, want %+v", again.Row, first.Row)
	}
	_, err := desk.Send(t.Context(), keyed("다른 말", "k"))
	wantCode(t, "the same key, other words", err, chat.IdempotencyMismatch)
	other := keyed("한 번", "k")
	other.User = presenter
	if got := mustSend(t, desk, other); got.Row.ID == first.Row.ID {
		t.Error("another user's key is another key")
	}
	if _, err := desk.EndBroadcast(t.Context(), "7", operator, "operator", nil); err != nil {
		t.Fatal(err)
	}
	if again := mustSend(t, desk, keyed("한 번", "k")); again.Row.ID != first.Row.ID {
		t.Error("whatever has changed since: the first answer holds after the end")
	}
	// A desk that has never heard of the key asks the log.
	if again := mustSend(t, newDesk(log, newPresence()), keyed("한 번", "k")); again.Row.ID != first.Row.ID {
		t.Error("another node gives another answer")
	}
}

// held is a log whose appends wait until they are let go.
type held struct {
	*logtest.Memory
	arrived chan struct{}
	let     chan struct{}
	appends atomic.Int64
}

func hold() *held {
	return &held{Memory: logtest.NewMemory("M"), arrived: make(chan struct{}, 1000), let: make(chan struct{})}
}

func (h *held) Append(ctx context.Context, room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	if rows[0].Kind == chat.KindMessage {
		h.appends.Add(1)
		h.arrived <- struct{}{}
		<-h.let
	}
	return h.Memory.Append(context.WithoutCancel(ctx), room, after, rows) // under way, it cannot be called back
}

func TestSameKeyInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := hold()
		desk := newDesk(log, newPresence())
		if _, err := desk.TakeLink(t.Context(), presenter, "S1"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { mustSend(t, desk, keyed("한 번", "k")) })
		<-log.arrived
		_, err := desk.Send(t.Context(), keyed("한 번", "k"))
		wantCode(t, "while the first is on its way", err, chat.IdempotencyInFlight)
		close(log.let)
		wg.Wait()
	})
}

func TestRequestsGatherWhileABatchIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := hold()
		desk := newDesk(log, newPresence())
		if _, err := desk.TakeLink(t.Context(), presenter, "S1"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		send := func(i int) { wg.Go(func() { mustSend(t, desk, line(fmt.Sprint("줄 ", i))) }) }
		send(0)
		<-log.arrived
		for i := range 50 {
			send(i + 1)
		}
		synctest.Wait()
		close(log.let)
		wg.Wait()
		if got := log.appends.Load(); got != 2 {
			t.Errorf("51 lines took %d appends, want 2", got)
		}
		if rows := rowsOf(t, log, "7"); len(rows) != 53 {
			t.Errorf("%d rows, want 53", len(rows))
		}
	})
}

// A line that waits in the same batch as the end of its broadcast, behind it,
// is judged by it.
func TestEachOfABatchIsJudgedByWhatComesBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := hold()
		desk := newDesk(log, newPresence())
		if _, err := desk.TakeLink(t.Context(), presenter, "S1"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { mustSend(t, desk, line("아직 방송 중")) })
		<-log.arrived
		wg.Go(func() {
			if ended, err := desk.EndBroadcast(t.Context(), "7", operator, "operator", nil); !ended || err != nil {
				t.Errorf("end: %v %v", ended, err)
			}
		})
		synctest.Wait()
		var late error
		wg.Go(func() { _, late = desk.Send(t.Context(), line("늦었다")) })
		synctest.Wait()
		close(log.let)
		wg.Wait()
		wantCode(t, "the line behind the end", late, chat.BroadcastEndedCode)
		if rows := rowsOf(t, log, "7"); len(rows) != 4 || rows[3].Details.State != chat.BroadcastEnded {
			t.Errorf("logged: %+v; want the end as the last of 4 rows", rows)
		}
	})
}

func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := hold()
		desk := newDesk(log, newPresence())
		if _, err := desk.TakeLink(t.Context(), presenter, "S1"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var inFlight, waiting error
		wg.Go(func() { _, inFlight = desk.Send(t.Context(), keyed("가는 중", "a")) })
		<-log.arrived
		wg.Go(func() { _, waiting = desk.Send(t.Context(), keyed("기다리는 중", "b")) })
		wg.Wait() // both give up after their deadline
		wantCode(t, "the one whose append was under way", inFlight, chat.LogOutcomeUnknown)
		wantCode(t, "the one that waited for its turn", waiting, chat.LogUnavailable)
		close(log.let)
		desk.Close()
		if rows := rowsOf(t, log, "7"); len(rows) != 3 || rows[2].Text != "가는 중" {
			t.Errorf("logged: %+v; want the first, and surely not the second", rows)
		}
		if got := mustSend(t, desk, keyed("가는 중", "a")); got.Row.Seq != 3 {
			t.Errorf("asked again with its key: seq %d, want 3", got.Row.Seq)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := hold()
		desk := chat.NewDesk(log, newPresence(), chat.DeskOptions{NewID: newID, MaxQueued: 10})
		if _, err := desk.TakeLink(t.Context(), presenter, "S1"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { mustSend(t, desk, line("첫")) })
		<-log.arrived
		for i := range 10 {
			wg.Go(func() { mustSend(t, desk, line(fmt.Sprint("줄 ", i))) })
		}
		synctest.Wait()
		_, err := desk.Send(t.Context(), line("열한째"))
		wantCode(t, "the queue is full", err, chat.Overloaded)
		close(log.let)
		wg.Wait()
	})
}

func TestFailingLog(t *testing.T) {
	desk, log, _ := liveDesk(t)
	for _, c := range []struct {
		name    string
		written bool
		err     error
		want    chat.Code
	}{
		{"surely not written", false, fmt.Errorf("%w: disk", chat.ErrLogUnavailable), chat.LogUnavailable},
		{"unknown, not written", false, fmt.Errorf("%w: cut", chat.ErrOutcomeUnknown), chat.LogOutcomeUnknown},
		{"unknown, written", true, fmt.Errorf("%w: cut", chat.ErrOutcomeUnknown), chat.LogOutcomeUnknown},
	} {
		log.FailWith(func(string, []chat.Row) (bool, error) { return c.written, c.err })
		_, err := desk.Send(t.Context(), keyed(c.name, c.name))
		wantCode(t, c.name, err, c.want)
		log.FailWith(nil)
		before := len(rowsOf(t, log, "7"))
		mustSend(t, desk, keyed(c.name, c.name))
		if got, want := len(rowsOf(t, log, "7"))-before, map[bool]int{true: 0, false: 1}[c.written]; got != want {
			t.Errorf("%s: the retry added %d rows, want %d", c.name, got, want)
		}
	}
}

// A line whose position another node has taken with the end of its broadcast is
// judged again, at the position behind that.
func TestALineThatTheEndOvertakesIsRefused(t *testing.T) {
	desk, log, _ := liveDesk(t)
	other := newDesk(log, newPresence())
	if ended, err := other.EndBroadcast(t.Context(), "7", operator, "operator", nil); !ended || err != nil {
		t.Fatalf("end: %v %v", ended, err)
	}
	_, err := desk.Send(t.Context(), line("늦었다"))
	wantCode(t, "a line on the node that has not heard of the end", err, chat.BroadcastEndedCode)
	if rows := rowsOf(t, log, "7"); len(rows) != 3 {
		t.Errorf("logged: %+v; want nothing behind the end", rows)
	}
}

// Invariant 6 with two nodes on one log: no line follows the end of its
// broadcast, whoever wrote what when.
func TestNoLineSlipsInBehindTheEnd(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	log := logtest.NewMemory("M")
	nodes := []*chat.Desk{newDesk(log, newPresence()), newDesk(log, newPresence())}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var said, refused atomic.Int64
	for i := range 12 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_, err := nodes[i%2].Send(t.Context(), line(fmt.Sprint(i, " ", n)))
				var ref *chat.Refusal
				switch {
				case err == nil:
					said.Add(1)
				case errors.As(err, &ref) && ref.Code == chat.BroadcastEndedCode:
					refused.Add(1)
				default:
					t.Errorf("send: %v", err)
					return
				}
			}
		})
	}
	for round := range 60 {
		node := nodes[random.IntN(2)]
		if _, err := node.TakeLink(t.Context(), presenter, fmt.Sprint("S", round)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return said.Load() > int64(round) })
		before := refused.Load()
		if _, err := nodes[random.IntN(2)].EndBroadcast(t.Context(), "7", operator, "operator", nil); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return refused.Load() > before }) // somebody has tried behind the end
	}
	stop()
	wg.Wait()
	st := chat.State{Room: "7"}
	for i, row := range rowsOf(t, log, "7") {
		if row.Seq != int64(i+1) {
			t.Fatalf("row %d has seq %d", i, row.Seq)
		}
		if row.Kind == chat.KindMessage && (!st.Live() || row.Broadcast != st.Broadcast.ID) {
			t.Fatalf("line %d of broadcast %q stands where %q runs", row.Seq, row.Broadcast, st.Broadcast.ID)
		}
		st = st.Apply(row)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("not reached within 15 s")
		case <-tick.C:
		}
	}
}

func TestIdleRoomsAreForgotten(t *testing.T) {
	log, p := logtest.NewMemory("M"), newPresence()
	desk := chat.NewDesk(log, p, chat.DeskOptions{NewID: newID, MaxRooms: 4})
	for i := range 100 {
		room := fmt.Sprint("r", i)
		if _, err := desk.TakeLink(t.Context(), chat.User{ID: room}, "S"); err != nil {
			t.Fatal(err)
		}
	}
	if got := desk.Rooms(); got > 4 {
		t.Errorf("%d rooms in memory, want at most 4", got)
	}
	if st, err := desk.State(t.Context(), "r0"); err != nil || !st.Live() || st.Seq != 2 {
		t.Errorf("a forgotten room is read back: %+v %v", st, err)
	}
}
