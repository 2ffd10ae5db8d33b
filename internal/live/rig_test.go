package live

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/time/rate"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/seal"
)

// TestMain looks for goroutines that outlive the tests. Inside a bubble
// synctest does so by itself, for every test on its own.
//
// One processor, because with two the race detector of Go 1.26 crashes: timers
// of a bubble that are due on both at once share one of its contexts.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	goleak.VerifyTestMain(m)
}

// rig is one or more nodes over one log, in fake time: for each a hub, a desk
// and an HTTP server whose connections are pipes.
type rig struct {
	t        *testing.T
	log      chat.Log
	known    *knownFrames
	nodes    []*node
	presence *presence
	clients  []*client
	viewers  []*viewer
}

type node struct {
	rig     *rig
	hub     *Hub
	desk    *chat.Desk
	metrics *prometheus.Registry
	gone    atomic.Int64 // calls of OnGone
	pipes   *pipeListener
	server  *http.Server
	dialer  *http.Client
}

// setup is what a test wants different.
type setup struct {
	nodes int            // 0 means 1
	log   chat.Log       // nil: an empty one in memory
	hub   func(*Options) // changes the options of every hub
	desk  func(*chat.DeskOptions)
}

// inBubble runs a test in fake time and takes everything down at its end. What
// does not end then fails the test.
func inBubble(t *testing.T, s setup, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, s)
		defer r.stop()
		test(t, r)
	})
}

func newRig(t *testing.T, s setup) *rig {
	t.Helper()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, log: s.log, known: &knownFrames{keys: seal.NewKeySet(key.Public()), good: map[string]knownFrame{}}, presence: &presence{}}
	if r.log == nil {
		r.log = newTall()
	}
	for range max(s.nodes, 1) {
		r.nodes = append(r.nodes, r.start(s, key))
	}
	return r
}

func (r *rig) start(s setup, key seal.Key) *node {
	n := &node{rig: r, metrics: prometheus.NewRegistry(), pipes: newPipeListener()}
	opts := Options{
		Log: r.log, Key: key, Frames: rate.Inf, Metrics: NewMetrics(n.metrics), Logger: slog.New(slog.DiscardHandler),
		NewID: newID, Verify: verify, OnGone: func(string) { n.gone.Add(1) },
		Take: func(ctx context.Context, presenter chat.User, session string) (chat.State, error) {
			return n.desk.TakeLink(ctx, presenter, session)
		},
		State: func(ctx context.Context, room string) (chat.State, error) { return n.desk.State(ctx, room) },
	}
	if s.hub != nil {
		s.hub(&opts)
	}
	n.hub = NewHub(opts)
	r.presence.add(n.hub)
	deskOpts := chat.DeskOptions{NewID: newID}
	if s.desk != nil {
		s.desk(&deskOpts)
	}
	n.desk = chat.NewDesk(r.log, r.presence, deskOpts)

	// The program's times, which a stream has to outlive.
	n.server = &http.Server{Handler: n, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second}
	n.dialer = &http.Client{Transport: &http.Transport{DialContext: n.pipes.dial}}
	go func() {
		if err := n.server.Serve(n.pipes); !errors.Is(err, http.ErrServerClosed) {
			r.t.Errorf("the server ended: %v", err)
		}
	}()
	return n
}

// ServeHTTP is the upgrade, or the stream, as the HTTP face does it: a token in
// the header, if there is one, and a cursor beside it.
func (n *node) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get("Accept") == "text/event-stream" {
		n.serveViewer(w, req)
		return
	}
	a := Arrival{Lang: chat.English}
	if req.URL.Path == "/chatting" {
		a.Original = time.UTC
	}
	if raw := req.Header.Get("Token"); raw != "" {
		user, err := verify(raw)
		if a.User = &user; err != nil {
			a.User, a.Refused = nil, err
		}
	}
	if after, err := strconv.ParseInt(req.URL.Query().Get("after"), 10, 64); err == nil {
		a.After, a.Log = &after, req.URL.Query().Get("log")
	}
	_ = n.hub.Accept(w, req, a) // it has answered
}

// stop ends the rig. Links that a test left open see the end of a drain; one
// that was turned away has its last seconds.
func (r *rig) stop() {
	for _, c := range r.clients {
		c.drop()
	}
	for _, v := range r.viewers {
		v.drop()
	}
	for _, n := range r.nodes {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		n.hub.Drain(ctx, 0)
		cancel()
		_ = n.server.Close()
		n.desk.Close()
		n.dialer.CloseIdleConnections()
	}
	time.Sleep(2*goodbyeTime + time.Second)
}

// newID makes ids that stay apart over all rigs, as logs may be shared.
func newID() string { return rand.Text() }

// pass lets time go by and everything that becomes due then happen.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// say posts a line at the first node and gives its seq.
func (r *rig) say(room, text string) int64 {
	r.t.Helper()
	receipt, err := r.nodes[0].desk.Send(context.Background(), chat.Draft{Room: room, User: chat.User{ID: "42", Nickname: "하늘"}, Text: text})
	if err != nil {
		r.t.Fatalf("say %q in room %s: %v", text, room, err)
	}
	return receipt.Row.Seq
}

// fill appends lines straight to the log: nobody is nudged, no desk knows.
func (r *rig) fill(room string, n int) {
	r.t.Helper()
	fill(r.t, r.log, room, n)
}

// grow does so with thousands of lines; once in a room.
func (r *rig) grow(room string, lines int64) {
	r.t.Helper()
	log := r.log
	if f, ok := log.(*flaky); ok {
		log = f.Log
	}
	log.(*tall).grow(r.t, room, lines)
}

func fill(t *testing.T, log chat.Log, room string, n int) {
	t.Helper()
	head := headOf(t, log, room)
	rows := make([]chat.Row, n)
	for i := range rows {
		rows[i] = lineOf(head + int64(i) + 1)
	}
	if _, err := log.Append(context.Background(), room, head, rows); err != nil {
		t.Fatalf("fill room %s with %d rows: %v", room, n, err)
	}
}

// openBroadcast logs the start of a broadcast as another process would.
func openBroadcast(t *testing.T, log chat.Log, room, id string) {
	t.Helper()
	row := chat.Row{ID: id, Idem: id, Kind: chat.KindBroadcast, Broadcast: id, At: bubbleEpoch,
		Details: chat.Details{State: chat.BroadcastStarted}}
	if _, err := log.Append(context.Background(), room, headOf(t, log, room), []chat.Row{row}); err != nil {
		t.Fatalf("open broadcast %s in room %s: %v", id, room, err)
	}
}

func (r *rig) head(room string) int64 {
	r.t.Helper()
	return headOf(r.t, r.log, room)
}

func headOf(t testing.TB, log chat.Log, room string) int64 {
	t.Helper()
	heads, err := log.Heads(context.Background(), []string{room})
	if err != nil {
		t.Fatalf("head of room %s: %v", room, err)
	}
	return heads[room]
}

// tokenFor is a token that verify understands.
func tokenFor(user string, expires time.Time) string {
	return user + " " + strconv.FormatInt(expires.Unix(), 10)
}

func freshToken(user string) string { return tokenFor(user, time.Now().Add(24*time.Hour)) }

// verify stands in for the verifier of tokens, which has tests of its own.
func verify(raw string) (chat.User, error) {
	if raw == "" {
		return chat.User{}, chat.Refuse(chat.TokenMissing)
	}
	id, until, ok := strings.Cut(raw, " ")
	sec, err := strconv.ParseInt(until, 10, 64)
	switch {
	case !ok, err != nil:
		return chat.User{}, chat.Refuse(chat.TokenInvalid)
	case time.Now().Unix() >= sec:
		return chat.User{}, chat.Refuse(chat.TokenExpired)
	}
	return chat.User{ID: id, Nickname: "방송 " + id, Expires: time.Unix(sec, 0)}, nil
}

// presence joins the hubs of all nodes as a router between them would.
type presence struct {
	mu    sync.Mutex
	hubs  []*Hub
	loses func() bool // whether the next nudge is lost; nil: never
}

var _ chat.Presence = (*presence)(nil)

func (p *presence) add(h *Hub) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hubs = append(p.hubs, h)
}

func (p *presence) lose(when func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loses = when
}

func (p *presence) Linked(room string) (linked bool, goneSince time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hubs {
		on, at := h.Linked(room)
		if on {
			return true, time.Time{}
		}
		if at.After(goneSince) {
			goneSince = at
		}
	}
	return false, goneSince
}

func (p *presence) Nudge(room string, head int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hubs {
		if p.loses == nil || !p.loses() {
			h.Nudge(room, head)
		}
	}
}

// pipeListener is a network without a network: what is dialled is accepted over
// net.Pipe, which has no buffer, so a peer that does not read blocks us at once.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
