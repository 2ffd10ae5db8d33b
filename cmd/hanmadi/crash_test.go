package main

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	crashPresenters = 20
	crashSenders    = 200
)

// TestCrash kills the program again and again while 200 people talk in 20
// rooms whose presenters come and go, and holds what everybody was told against
// what the log says in the end. HANMADI_TEST_SEED repeats the choices of a run
// (not its timing), HANMADI_TEST_CRASH_ROUNDS says how often it is killed.
func TestCrash(t *testing.T) {
	seed := numberFromEnv(t, "HANMADI_TEST_SEED", rand.Uint64()>>1)
	rounds := int(numberFromEnv(t, "HANMADI_TEST_CRASH_ROUNDS", 5))
	t.Logf("HANMADI_TEST_SEED=%d HANMADI_TEST_CRASH_ROUNDS=%d", seed, rounds)

	// Short windows, so that broadcasts end and begin anew under load and
	// senders are refused for a presenter who is away.
	s := newServer(t, "serve", "HANMADI_BROADCAST_QUEUE_FOR=500ms", "HANMADI_BROADCAST_END_AFTER=1s")
	c := newChaos(t, s, seed)
	c.begin()
	random := rand.New(rand.NewPCG(seed, 0))
	for round := 1; round <= rounds; round++ {
		delay := killDelay(random)
		if !pause(t.Context(), delay) {
			t.Fatal("the test was stopped")
		}
		s.kill()
		t.Logf("round %d/%d: killed %s after its start; so far %s", round, rounds, delay.Round(time.Millisecond), c.summary())
		c.mustBeFaultless()
		s.launch()
	}
	s.awaitReady()
	c.end()
	logs := c.readLogs()
	c.report(audit(logs, c.senders, c.presenters))
	c.checkKeys()
	s.kill()
	checkFile(t, s.logPath(), logs)
	t.Logf("in the end %s", c.summary())
}

func numberFromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, text)
	}
	return n
}

// killDelay is the time from a start to its kill. One in five comes while the
// program still opens its log.
func killDelay(random *rand.Rand) time.Duration {
	if random.IntN(5) == 0 {
		return time.Duration(random.Int64N(int64(150 * time.Millisecond)))
	}
	return 500*time.Millisecond + time.Duration(random.Int64N(int64(3500*time.Millisecond)))
}

// chaos is what all actors of the test share.
type chaos struct {
	t      *testing.T
	server *server
	ctx    context.Context // ends with the test
	client *http.Client
	keys   publicKeys

	hush chan struct{} // closed: senders begin no new lines
	calm chan struct{} // closed: presenters stay

	// leaving is held for reading by presenters who leave and for writing by who
	// closes calm: from then on it is certain that whoever is there stays there.
	leaving sync.RWMutex

	senders    []*sender
	presenters []*presenter
	talking    sync.WaitGroup // senders
	linking    sync.WaitGroup // presenters

	answered, lost, links atomic.Int64

	mu      sync.Mutex
	refused map[string]int // guarded by mu: answers other than 201, by code
	faults  []string       // guarded by mu: what must not have happened
}

func newChaos(t *testing.T, s *server, seed uint64) *chaos {
	ctx, cancel := context.WithCancel(t.Context())
	c := &chaos{t: t, server: s, ctx: ctx, hush: make(chan struct{}), calm: make(chan struct{}), refused: map[string]int{},
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: crashSenders}}}
	t.Cleanup(func() {
		cancel()
		c.talking.Wait()
		c.linking.Wait()
		c.client.CloseIdleConnections()
	})
	for i := range crashPresenters {
		room := fmt.Sprintf("p%02d", i)
		c.presenters = append(c.presenters, &presenter{chaos: c, room: room, token: mint(t, room, "방송자 "+room),
			random: rand.New(rand.NewPCG(seed, 1000+uint64(i)))})
	}
	for i := range crashSenders {
		user := fmt.Sprintf("s%03d", i)
		c.senders = append(c.senders, &sender{chaos: c, user: user, room: c.presenters[i%crashPresenters].room,
			token: mint(t, user, "시청자 "+user), random: rand.New(rand.NewPCG(seed, 2000+uint64(i)))})
	}
	return c
}

// begin starts the server and everybody. Senders wait until each presenter has
// been welcomed, so that what a presenter sees begins with its room's first row.
func (c *chaos) begin() {
	c.t.Helper()
	c.server.start()
	c.keys = fetchPublicKeys(c.t, c.server)
	for _, p := range c.presenters {
		c.linking.Go(p.run)
	}
	eventually(c.t, "every presenter is welcomed once", func() bool {
		return !slices.ContainsFunc(c.presenters, func(p *presenter) bool { return !p.welcomed.Load() })
	})
	for _, s := range c.senders {
		c.talking.Go(s.run)
	}
}

// end lets everybody come to rest: senders learn what became of their last
// lines, presenters stay and see everything.
func (c *chaos) end() {
	c.t.Helper()
	close(c.hush)
	c.leaving.Lock()
	close(c.calm)
	c.leaving.Unlock()
	silent := make(chan struct{})
	go func() { c.talking.Wait(); close(silent) }()
	select {
	case <-silent:
	case <-time.After(4 * patience):
		c.report(nil)
		c.t.Fatalf("the senders do not learn what became of their lines: %s", c.summary())
	}
	for _, p := range c.presenters {
		var room struct {
			Live, Linked bool
			Head         int64
		}
		caughtUp := func() bool {
			if !p.here.Load() {
				return false
			}
			status := request(c.t, http.MethodGet, c.server.url("/v1/rooms/"+p.room), "", "", &room)
			return status == http.StatusOK && room.Live && room.Linked && p.cursor.Load() == room.Head
		}
		if !within(patience, func() bool { return caughtUp() || c.faulty() }) {
			c.fault("presenter %s stays at #%d: %+v", p.room, p.cursor.Load(), room)
		}
		c.mustBeFaultless()
	}
}

// fault notes something that must not happen. Actors call it from their own
// goroutines.
func (c *chaos) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

func (c *chaos) faulty() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.faults) > 0
}

// mustBeFaultless ends the test early: after a fault the rest tells nothing.
func (c *chaos) mustBeFaultless() {
	c.t.Helper()
	if c.faulty() {
		c.report(nil)
		c.t.FailNow()
	}
}

// report fails the test with the first of the faults.
func (c *chaos) report(more []string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := append(c.faults, more...)
	for i, fault := range all {
		if i == 20 {
			c.t.Errorf("and %d more", len(all)-i)
			break
		}
		c.t.Error(fault)
	}
}

func (c *chaos) summary() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := fmt.Sprintf("%d lines logged, %d answers lost, %d links, refused:", c.answered.Load(), c.lost.Load(), c.links.Load())
	for _, code := range slices.Sorted(maps.Keys(c.refused)) {
		s += fmt.Sprintf(" %s %d", code, c.refused[code])
	}
	return s
}

// readLogs reads every room over HTTP, page by page.
func (c *chaos) readLogs() map[string][]event {
	c.t.Helper()
	logs := map[string][]event{}
	for _, p := range c.presenters {
		for after := int64(0); ; {
			var page struct {
				Log    string
				Events []event
				Head   int64
				Next   *int64
			}
			url := c.server.url(fmt.Sprintf("/v1/rooms/%s/events?after=%d&limit=200&log=%s", p.room, after, p.log))
			if status := request(c.t, http.MethodGet, url, "", "", &page); status != http.StatusOK {
				c.t.Fatalf("reading room %s after #%d: got status %d, want 200", p.room, after, status)
			}
			logs[p.room] = append(logs[p.room], page.Events...)
			if page.Next == nil {
				break
			}
			after = *page.Next
		}
	}
	return logs
}

// checkKeys sees to it that the key that signs frames outlived the kills:
// pages that cached it would otherwise refuse every frame.
func (c *chaos) checkKeys() {
	c.t.Helper()
	now := fetchPublicKeys(c.t, c.server)
	if !maps.EqualFunc(now, c.keys, func(a, b ed25519.PublicKey) bool { return a.Equal(b) }) {
		c.t.Errorf("the keys changed: got %v, want %v", now, c.keys)
	}
}

// checkFile asks SQLite itself, with no program running, and counts the rows
// that are in the file against those that were served.
func checkFile(t *testing.T, path string, logs map[string][]event) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || strings.TrimSpace(verdict) != "ok" {
		t.Errorf("integrity_check: got %q (%v), want ok", verdict, err)
	}
	want := 0
	for _, log := range logs {
		want += len(log)
	}
	var got int
	if err := db.QueryRow("SELECT count(*) FROM chat_log").Scan(&got); err != nil || got != want {
		t.Errorf("rows in the file: got %d (%v), want the %d that were served", got, err, want)
	}
}
