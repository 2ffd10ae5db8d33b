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
var rates = moderate.Rates{User: moderate.Per(5, 7500*time.Millisecond), Room: moderate.Per(12, 6*time.Second), Address: moderate.Per(16, 8*time.Second)}

// attempt is one request and what became of it. It belongs to its sender until
// that has ended.
type attempt struct {
	process             int
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
	now      *process
	attempts []*attempt
}

// process is one life of the program: what it knows dies with it.
type process struct {
	number int
	desk   *chat.Desk
	dead   chan struct{}
	disk   *disk
	chat.Log
}

func (r *run) startProcess(number int) *process {
	p := &process{number: number, dead: make(chan struct{}), disk: r.disk, Log: r.disk.memory}
	ids := 0
	var mu sync.Mutex
	newID := func() string {
		mu.Lock()
		defer mu.Unlock()
		ids++
		return fmt.Sprintf("P%d-%d", number, ids)
	}
	p.desk = chat.NewDesk(p, linked{}, chat.DeskOptions{NewID: newID, Limits: moderate.NewLimits(rates), MaxRooms: 2})
	return p
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
	calm   bool                 // guarded by mu: quick from now on
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

func (d *disk) store(room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	stored, err := d.memory.Append(context.Background(), room, after, rows)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, row := range rows {
		if _, found, _ := d.memory.ByIdem(context.Background(), room, row.Idem); found && d.stored[row.ID].IsZero() {
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

// crash ends the process: from now on it stores nothing and answers nobody.
func (r *run) crash() {
	r.mu.Lock()
	old := r.now
	r.now = r.startProcess(old.number + 1)
	close(old.dead)
	r.mu.Unlock()
}

// send makes an attempt at the process of the moment.
func (r *run) send(a *attempt) *attempt {
	r.mu.Lock()
	p := r.now
	a.process, a.start = p.number, time.Now()
	r.attempts = append(r.attempts, a)
	r.mu.Unlock()
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
			r.send(a)
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
	for round := range uint64(8) {
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
	r.now = r.startProcess(1)
	for _, room := range []string{"7", "8", "9"} {
		if _, err := r.now.desk.TakeLink(context.Background(), chat.User{ID: room}, "S"); err != nil {
			t.Fatal(err)
		}
	}
	d.beCalm(false)
	d.memory.FailWith(d.fail)
	var talking sync.WaitGroup
	for _, user := range []string{"a", "b", "c", "d", "e", "7"} { // 7 is a presenter
		for range 2 {
			random := source()
			talking.Go(func() { r.talk(user, random) })
		}
	}
	for range 4 {
		time.Sleep(time.Duration(r.random.Int64N(int64(40 * time.Second))))
		r.crash()
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
		if got := r.send(&attempt{user: a.user, room: a.room, address: a.address, key: a.key, text: a.text}); got.row == nil && got.code != chat.IdempotencyMismatch {
			r.t.Errorf("asked at rest: %+v", got)
		}
	}
	r.now.desk.Close()
	time.Sleep(time.Minute)
}
