package live

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// linked counts the links that a room has on all nodes.
func (r *rig) linked(room string) (n int) {
	for _, node := range r.nodes {
		if on, _ := node.hub.Linked(room); on {
			n++
		}
	}
	return n
}

func TestANewerLinkReplacesTheOlder(t *testing.T) {
	for name, nodes := range map[string]int{"on one node": 1, "on two nodes": 2} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, setup{nodes: nodes}, func(t *testing.T, r *rig) {
				older := r.connect(dialing{})
				r.say("7", "하나")
				newer := r.connect(dialing{node: nodes - 1})
				older.wantClosed("the older", wire.CloseReplaced, chat.LinkReplaced)
				r.say("7", "둘")
				r.pass(0)
				newer.wantOpen("the newer")
				newer.wantRun("the newer", 1, 5)
				if last := older.cursor(); last < 3 {
					t.Errorf("the older has rows up to %d, want at least the line before it was replaced, 3", last)
				}
				back := r.connect(dialing{from: older}) // against the advice of 4500, say by hand
				newer.wantClosed("the newer, replaced in turn", wire.CloseReplaced, chat.LinkReplaced)
				back.wantRun("the older come back", older.cursor()+1, 6)
				if got := r.linked("7"); got != 1 {
					t.Errorf("the room has %d links, want 1", got)
				}
			})
		})
	}
}

func TestTheRoomIsNeverLeftWhileItsLinkIsReplaced(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.connect(dialing{})
		r.connect(dialing{})
		// The older may read of the newer in the log before that is the room's link,
		// and then says that it has gone: whoever hears it looks who is there.
		before := r.nodes[0].gone.Load()
		if on, _ := r.nodes[0].hub.Linked("7"); !on || before > 1 {
			t.Errorf("the newer is linked: %v, and OnGone was called %d times; want true, and once at most", on, before)
		}
		r.clients[1].drop()
		r.pass(0)
		if got := r.nodes[0].gone.Load() - before; got != 1 {
			t.Errorf("when the newer has gone: OnGone was called %d times, want once", got)
		}
		if on, at := r.nodes[0].hub.Linked("7"); on || !at.Equal(time.Now()) {
			t.Errorf("linked: got %v since %v, want false since now", on, at)
		}
	})
}

func TestAnOlderLinkOnAnotherNodeHearsByTheSlowTimer(t *testing.T) {
	inBubble(t, setup{nodes: 2}, func(t *testing.T, r *rig) {
		older := r.connect(dialing{})
		r.pass(time.Second) // past the timer's first second
		r.presence.lose(func() bool { return true })
		newer := r.connect(dialing{node: 1})
		older.wantOpen("before it has read the log")
		newer.wantRun("the newer", 1, 3)
		r.pass(10 * time.Second)
		older.wantClosed("10 s later", wire.CloseReplaced, chat.LinkReplaced)
		older.wantRun("the older", 1, 3)
		newer.wantOpen("the newer")
	})
}

func TestAReplacedLinkThatIsBlockedIsGoneInFiveSeconds(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		older := r.connect(dialing{})
		older.deafen()
		r.grow("7", 900)
		r.nodes[0].hub.Nudge("7", 902)
		r.pass(time.Second)
		newer := r.connect(dialing{after: seqOf(0)})
		newer.wantRun("the newer, while the older is blocked", 1, 903)
		r.pass(goodbyeTime)
		if got := len(r.nodes[0].hub.sessions); got != 1 {
			t.Errorf("5 s later: the node has %d sessions, want the newer alone", got)
		}
		r.wantCloses("replaced", 1)
		newer.wantOpen("the newer")
	})
}

func TestAReplacedLinkThatReadsOnInTimeIsToldWhy(t *testing.T) {
	for name, nodes := range map[string]int{"on one node": 1, "on two nodes": 2} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, setup{nodes: nodes}, func(t *testing.T, r *rig) {
				older := r.connect(dialing{})
				older.deafen()
				r.grow("7", 900)
				r.nodes[0].hub.Nudge("7", 902)
				r.pass(time.Second)
				newer := r.connect(dialing{node: nodes - 1})
				r.pass(goodbyeTime - time.Millisecond)
				older.listen()
				r.pass(0)
				older.wantClosed("the older", wire.CloseReplaced, chat.LinkReplaced)
				newer.wantOpen("the newer")
			})
		})
	}
}

// TestALinkWhoseTurnCameFirstMayArriveLast has a link whose row is logged before
// another's and that is told so after it: the row counts.
func TestALinkWhoseTurnCameFirstMayArriveLast(t *testing.T) {
	slow := func(o *Options) {
		take, first := o.Take, true
		o.Take = func(ctx context.Context, presenter chat.User, session string) (chat.State, error) {
			delayed := first
			first = false
			st, err := take(ctx, presenter, session)
			if delayed {
				time.Sleep(time.Second)
			}
			return st, err
		}
	}
	inBubble(t, setup{hub: slow}, func(t *testing.T, r *rig) {
		older := r.connect(dialing{})
		newer := r.connect(dialing{})
		newer.wantRun("the newer", 1, 3)
		older.wantRun("the older, still waiting", 1, 0)
		r.pass(time.Second)
		older.wantClosed("the older", wire.CloseReplaced, chat.LinkReplaced)
		newer.wantOpen("the newer")
		if got := r.nodes[0].gone.Load(); got != 0 {
			t.Errorf("OnGone was called %d times, want never", got)
		}
	})
}

// TestOfManyLinksAtOnceOneRemains is a race, for the race detector too.
func TestOfManyLinksAtOnceOneRemains(t *testing.T) {
	inBubble(t, setup{nodes: 2}, func(t *testing.T, r *rig) {
		const links = 24
		dials := make([]*client, links)
		var ready sync.WaitGroup
		for i := range links {
			dials[i] = r.dial(dialing{node: i % 2, mute: true})
		}
		for _, c := range dials {
			ready.Go(func() { c.send(wire.Start{Token: freshToken("7")}) })
		}
		ready.Wait()
		r.pass(10 * time.Second)
		open := 0
		for i, c := range dials {
			if _, closed := c.closed(); closed {
				c.wantClosed(fmt.Sprint("link ", i), wire.CloseReplaced, chat.LinkReplaced)
				continue
			}
			open++
			c.wantRun("the one that remains", 1, links+1)
		}
		if open != 1 || r.linked("7") != 1 {
			t.Errorf("%d links are open and %d linked, want 1", open, r.linked("7"))
		}
	})
}
