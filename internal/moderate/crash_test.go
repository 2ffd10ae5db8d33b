package moderate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
	"github.com/hanmadi/hanmadi/internal/moderate"
)

// The limits of the runs: small, so that all three are hit.
var rates = moderate.Rates{User: moderate.Per(5, 7500*time.Millisecond), Room: moderate.Per(4, 4*time.Second), Address: moderate.Per(6, 3600*time.Millisecond)}

// attempt is one request and what became of it. It belongs to its sender until
// that has ended.
type attempt struct {
	process             int
	id                  string // of the row that it would log
	user, room, address string
	key, text           string
	start, end          time.Time
	code                chat.Code // "" with row: 201; "" without: the process died, and nobody was answered
	row                 *chat.Row
}

// run is people who talk, on processes that crash, over a log that fails.
type run struct {
	t      *testing.T
	random *rand.Rand // of the crashes; every sender has its own
	disk   *disk
	stop   chan struct{}

	mu       sync.Mutex
	nodes    [2]*process // of the moment
	started  int
	attempts []*attempt
}

// process is one life of the program: what it knows dies with it.
type process struct {
	t      *testing.T
	number int
	desk   *chat.Desk
	dead   chan struct{}
	disk   *disk
	chat.Log

	naming sync.Mutex // from the call of Send until it has made its row's id
	ids    int        // guarded by naming

	mu        sync.Mutex
	appending map[string]bool // guarded by mu: rooms with an append in flight
}

func (r *run) startProcess() *process {
	r.started++
	p := &process{t: r.t, number: r.started, dead: make(chan struct{}), disk: r.disk, Log: r.disk.memory, appending: map[string]bool{}}
	p.desk = chat.NewDesk(p, linked{}, chat.DeskOptions{NewID: p.newID, Limits: moderate.NewLimits(rates), MaxRooms: 2})
	return p
}

// newID is asked by Send for every attempt, before anything else: so it is known
// which attempt a row is of.
func (p *process) newID() string {
	defer p.naming.Unlock()
	p.ids++
	return fmt.Sprintf("P%d-%d", p.number, p.ids)
}

// linked is presenters who are all there.
type linked struct{}

func (linked) Linked(string) (bool, time.Time) { return true, time.Time{} }
func (linked) Nudge(string, int64)             {}

// disk is a log that takes its time, like a commit that cannot be called back:
// who gives up is told that the outcome is unknown, and it comes about later.
type disk struct {
	memory *logtest.Memory
	turn   chan struct{} // holds one value while nobody writes

	mu     sync.Mutex
	random *rand.Rand           // guarded by mu
	calm   bool                 // guarded by mu: quick, and nothing fails
	stored map[string]time.Time // guarded by mu: when each row was, by its id
}

func (d *disk) delay() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.calm || d.random.IntN(3) > 0:
		return time.Millisecond
	case d.random.IntN(12) == 0:
		return 3*time.Second + time.Duration(d.random.Int64N(int64(12*time.Second))) // longer than anybody waits
	}
	return time.Duration(d.random.Int64N(int64(300 * time.Millisecond)))
}

// Append implements [chat.Log] for one process.
func (p *process) Append(ctx context.Context, room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	p.enter(room)
	defer p.leave(room)
	select {
	case <-p.disk.turn:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", chat.ErrLogUnavailable, ctx.Err())
	}
	type result struct {
		rows []chat.Row
		err  error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { p.disk.turn <- struct{}{} }()
		time.Sleep(p.disk.delay())
		var res result
		if res.err = chat.ErrOutcomeUnknown; p.alive() {
			res.rows, res.err = p.disk.store(room, after, rows)
		}
		time.Sleep(p.disk.delay()) // a crash may come between the disk and the answer
		done <- res
	}()
	select {
	case res := <-done:
		return res.rows, res.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", chat.ErrOutcomeUnknown, ctx.Err())
	}
}

// enter holds the desk to the log's contract: one append of a room at a time.
func (p *process) enter(room string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.appending[room] {
		p.t.Errorf("two appends in room %s at a time", room)
	}
	p.appending[room] = true
}

func (p *process) leave(room string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.appending[room] = false
}

func (d *disk) store(room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	stored, err := d.memory.Append(context.Background(), room, after, rows)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, row := range rows {
		if there, found, _ := d.memory.ByIdem(context.Background(), room, row.Idem); found && there.ID == row.ID {
			d.stored[row.ID] = time.Now()
		}
	}
	return stored, err
}

func (d *disk) beCalm(calm bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calm = calm
}

// fail is what Memory is told to do with an append.
func (d *disk) fail(string, []chat.Row) (written bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calm {
		return false, nil
	}
	switch d.random.IntN(12) {
	case 0:
		return false, fmt.Errorf("%w: before", chat.ErrLogUnavailable)
	case 1:
		return false, fmt.Errorf("%w: before", chat.ErrOutcomeUnknown)
	case 2:
		return true, fmt.Errorf("%w: after", chat.ErrOutcomeUnknown)
	}
	return false, nil
}

func (p *process) alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return true
	}
}

// crash ends a node's process: from now on it stores nothing and answers nobody.
func (r *run) crash(node int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.nodes[node].dead)
	r.nodes[node] = r.startProcess()
}

// send makes an attempt at a node.
func (r *run) send(node int, a *attempt) *attempt {
	r.mu.Lock()
	p := r.nodes[node]
	r.attempts = append(r.attempts, a)
	r.mu.Unlock()
	p.naming.Lock()
	a.process, a.id, a.start = p.number, fmt.Sprintf("P%d-%d", p.number, p.ids+1), time.Now()
	receipt, err := p.desk.Send(context.Background(), chat.Draft{Room: a.room, User: chat.User{ID: a.user, Nickname: a.user}, Text: a.text, Key: a.key,
		Address: netip.MustParseAddr(a.address)})
	a.end = time.Now()
	var ref *chat.Refusal
	switch {
	case !p.alive(): // the answer died with it
	case err == nil:
		a.row = &receipt.Row
	case errors.As(err, &ref):
		a.code = ref.Code
	default:
		r.t.Errorf("%+v: an error without a code: %v", a, err)
	}
	return a
}

// talk is one device of a user, who has two, with the same keys.
func (r *run) talk(user string, random *rand.Rand) {
	for n := 0; ; n++ {
		pause := time.Duration(random.Int64N(int64(1200 * time.Millisecond)))
		if random.IntN(4) == 0 {
			pause *= 8
		}
		select {
		case <-r.stop:
			return
		case <-time.After(pause):
		}
		for range 1 + random.IntN(4) { // people send in bursts
			a := &attempt{user: user, room: strconv.Itoa(7 + random.IntN(3)), address: fmt.Sprintf("192.0.2.%d", random.IntN(2))}
			if random.IntN(4) == 0 {
				a.text = fmt.Sprintf("%s %d %d", user, n, random.Uint32())
			} else {
				a.key = fmt.Sprint("k", random.IntN(40))
				a.text = fmt.Sprintf("%s %s %s", user, a.room, a.key)
				if random.IntN(10) == 0 {
					a.text += " in other words"
				}
			}
			node := random.IntN(2)
			for a = r.send(node, a); a.code == chat.LogOutcomeUnknown && a.key != "" && random.IntN(4) > 0; {
				a = r.send(node, &attempt{user: a.user, room: a.room, address: a.address, key: a.key, text: a.text})
			}
		}
	}
}

// TestLinesUnderCrashAndConcurrency holds every answer against a model that
// knows nothing of how buckets or keys are kept. HANMADI_TEST_SEED repeats a run.
func TestLinesUnderCrashAndConcurrency(t *testing.T) {
	seed := rand.Uint64() >> 1
	if given := os.Getenv("HANMADI_TEST_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("HANMADI_TEST_SEED: %v", err)
		}
	}
	total := verdict{codes: map[chat.Code]int{}}
	for round := range uint64(6) {
		t.Logf("HANMADI_TEST_SEED=%d round %d", seed, round)
		synctest.Test(t, func(t *testing.T) { total.add(talkAndCrash(t, seed, round)) })
		if t.Failed() {
			return
		}
	}
	t.Logf("%+v", total)
	for _, code := range []chat.Code{"", chat.RateUser, chat.RateRoom, chat.RateRequests, chat.IdempotencyMismatch, chat.IdempotencyInFlight,
		chat.LogUnavailable, chat.LogOutcomeUnknown} {
		if total.codes[code] == 0 {
			t.Errorf("no answer was %q: the runs show less than they should", code)
		}
	}
	if total.lost == 0 || total.repeated == 0 {
		t.Errorf("%d answers were lost in a crash, %d were first answers again: the runs show less than they should", total.lost, total.repeated)
	}
}

func talkAndCrash(t *testing.T, seed, round uint64) verdict {
	stream := round << 32
	source := func() *rand.Rand { stream++; return rand.New(rand.NewPCG(seed, stream)) }
	d := &disk{memory: logtest.NewMemory("M"), turn: make(chan struct{}, 1), random: source(), calm: true, stored: map[string]time.Time{}}
	d.turn <- struct{}{}
	r := &run{t: t, random: source(), disk: d, stop: make(chan struct{})}
	r.nodes = [2]*process{r.startProcess(), r.startProcess()}
	for _, room := range []string{"7", "8", "9"} {
		start := chat.Row{ID: "B" + room, Idem: "B" + room, Kind: chat.KindBroadcast, Broadcast: "B" + room, Details: chat.Details{State: chat.BroadcastStarted}}
		if _, err := d.memory.Append(context.Background(), room, 0, []chat.Row{start}); err != nil {
			t.Fatal(err)
		}
	}
	d.memory.FailWith(d.fail)
	d.beCalm(round%2 == 0) // then all that is not certain is what a crash has hidden
	var talking sync.WaitGroup
	for _, user := range []string{"a", "b", "c", "d", "e", "7"} { // 7 is a presenter
		for range 2 {
			random := source()
			talking.Go(func() { r.talk(user, random) })
		}
	}
	for range 4 {
		time.Sleep(time.Duration(r.random.Int64N(int64(40 * time.Second))))
		r.crash(r.random.IntN(2))
	}
	time.Sleep(20 * time.Second)
	close(r.stop)
	talking.Wait()
	r.comeToRest()
	return r.judge()
}

// comeToRest lets every key learn its outcome.
func (r *run) comeToRest() {
	r.disk.beCalm(true)
	time.Sleep(time.Minute) // what is under way ends, and the buckets are full
	asked := map[scope]bool{}
	for _, a := range r.attempts {
		if a.key == "" || asked[scopeOf(a)] {
			continue
		}
		asked[scopeOf(a)] = true
		time.Sleep(2 * time.Second)
		if got := r.send(0, &attempt{user: a.user, room: a.room, address: a.address, key: a.key, text: a.text}); got.row == nil && got.code != chat.IdempotencyMismatch {
			r.t.Errorf("asked at rest: %+v", got)
		}
	}
	time.Sleep(time.Minute)
}
