package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

// switchable is a presence that a test turns on and off.
type switchable struct {
	mu     sync.Mutex
	linked map[string]bool
	since  time.Time
}

func (p *switchable) Linked(room string) (bool, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.linked[room], p.since
}

func (p *switchable) Nudge(string, int64) {}

func (p *switchable) set(room string, linked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.linked[room], p.since = linked, time.Now()
}

// externalRig is a desk beside a room server, its presenter 7 linked.
type externalRig struct {
	server   *roomServer
	presence *switchable
	desk     *chat.Desk
	follower *Follower
	closed   atomic.Int64
	sent     int
}

func newRig(t *testing.T) *externalRig {
	t.Helper()
	r := &externalRig{server: &roomServer{}, presence: &switchable{linked: map[string]bool{"7": true}}}
	client := newClient(t, r.server)
	var ids atomic.Int64
	r.desk = chat.NewDesk(logtest.NewMemory("M"), r.presence, chat.DeskOptions{Directory: client, QueueFor: time.Hour,
		NewID:     func() string { return fmt.Sprint("ID", ids.Add(1)) },
		OnStarted: func(room string) { r.follower.Watch(room) }})
	r.follower = NewFollower(r.desk, client, r.presence, func(string) { r.closed.Add(1) }, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.follower.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return r
}

// send says a line and wants a code, "" for logged.
func (r *externalRig) send(t *testing.T, want chat.Code) chat.Row {
	t.Helper()
	r.sent++
	got, err := r.desk.Send(t.Context(), chat.Draft{Room: "7", User: chat.User{ID: "42"}, Text: fmt.Sprint("줄 ", r.sent)})
	var ref *chat.Refusal
	switch {
	case want == "" && err != nil, want != "" && (!errors.As(err, &ref) || ref.Code != want):
		t.Errorf("line %d: got %v, want %q", r.sent, err, want)
	}
	return got.Row
}

func (r *externalRig) state(t *testing.T) chat.State {
	t.Helper()
	st, err := r.desk.State(t.Context(), "7")
	if err != nil {
		t.Fatal(err)
	}
	return st
}
