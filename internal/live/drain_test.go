package live

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// drain starts a drain of the first node; the channel is closed when it returns.
func (r *rig) drain(within, over time.Duration) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		r.nodes[0].hub.Drain(ctx, over)
	}()
	synctest.Wait()
	return done
}

// returned reports whether a drain has come to its end.
func returned(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func countClosed(all []*client) (n int) {
	for _, c := range all {
		if _, closed := c.closed(); closed {
			n++
		}
	}
	return n
}

func TestDrainSpreadsItsGoodbyesEvenly(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		var all []*client
		for i := range 10 {
			all = append(all, r.connect(dialing{user: fmt.Sprint(i)}))
		}
		done := r.drain(time.Minute, 20*time.Second)
		for passed, want := 5*time.Second, 2; passed <= 15*time.Second; passed, want = passed+5*time.Second, want+3 {
			r.pass(5 * time.Second)
			if got := countClosed(all); got < want || got > want+2 {
				t.Errorf("after %v of 20 s: got %d of 10 links closed, want %d to %d", passed, got, want, want+2)
			}
			if returned(done) {
				t.Errorf("after %v: drain has returned while links are open", passed)
			}
		}
		r.pass(5 * time.Second)
		if !returned(done) {
			t.Error("after 20 s: drain has not returned though every peer answered")
		}
		for _, c := range all {
			if told := c.wantClosed("link "+c.room, wire.CloseDraining, chat.Draining); told.RetryAfterS < 1 {
				t.Errorf("link %s: told to wait %d s, want at least 1", c.room, told.RetryAfterS)
			}
		}
	})
}

func TestLinesFlowUntilALinksOwnGoodbye(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		all := []*client{r.connect(dialing{user: "1"}), r.connect(dialing{user: "2"})}
		r.drain(time.Minute, 20*time.Second)
		if countClosed(all) != 1 {
			t.Fatalf("got %d links closed at once, want 1 of 2", countClosed(all))
		}
		for _, c := range all {
			r.say(c.room, "아직 열려 있나요?")
		}
		r.pass(0)
		for _, c := range all {
			if _, closed := c.closed(); !closed {
				c.wantRun("the link that waits for its goodbye", 1, 3)
			}
		}
	})
}

func TestNewcomersToADrainingNodeAreToldSo(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		done := r.drain(time.Minute, 0)
		c.wantClosed("the link that was there", wire.CloseDraining, chat.Draining)
		if !returned(done) {
			t.Error("drain has not returned")
		}
		for name, d := range map[string]dialing{"token in the header": {}, "token in the frame": {frame: true}, "no token yet": {mute: true}} {
			r.connect(d).wantClosed(name, wire.CloseDraining, chat.Draining)
		}
		if got, want := r.head("7"), int64(2); got != want {
			t.Errorf("the log has %d rows, want %d: newcomers take no room", got, want)
		}
	})
}

func TestDrainOfNothingReturnsAtOnce(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		if !returned(r.drain(time.Minute, 20*time.Second)) {
			t.Error("drain of a hub with no links has not returned")
		}
	})
}

func TestDrainTwiceIsDrainOnce(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		first := r.drain(time.Minute, 0)
		second := r.drain(time.Minute, 0)
		r.pass(time.Second)
		if !returned(first) || !returned(second) {
			t.Errorf("first drain returned: %v, second: %v; want both", returned(first), returned(second))
		}
		c.wantClosed("drained twice", wire.CloseDraining, chat.Draining)
	})
}

func TestDrainWaitsForAPeerOnlySoLong(t *testing.T) {
	for name, dial := range map[string]func(*rig){
		"a page that does not read":      func(r *rig) { r.connect(dialing{deaf: true}) },
		"a page that has not started":    func(r *rig) { r.connect(dialing{mute: true, deaf: true}) },
		"a page that does not close":     func(r *rig) { r.connectStubborn() },
		"a page that vanishes meanwhile": func(r *rig) { time.AfterFunc(time.Second, r.connect(dialing{deaf: true}).drop) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				dial(r)
				began := time.Now()
				<-r.drain(time.Minute, 0)
				if took := time.Since(began); took > 2*goodbyeTime {
					t.Errorf("drain took %v, want at most %v", took, 2*goodbyeTime)
				}
				r.wantNoSessions("after the drain")
			})
		})
	}
}

// connectStubborn opens a link whose page reads everything and answers nothing,
// not even a close.
func (r *rig) connectStubborn() {
	r.t.Helper()
	conn, err := r.nodes[0].pipes.dial(context.Background(), "", "")
	if err != nil {
		r.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	_, err = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nToken: %s\r\n\r\n", freshToken("7"))
	if err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
	if linked, _ := r.nodes[0].hub.Linked("7"); !linked {
		r.t.Fatal("the stubborn page has no link")
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		for i := range 10 {
			r.connect(dialing{user: fmt.Sprint(i), deaf: true})
		}
		began := time.Now()
		<-r.drain(time.Second, time.Hour)
		if took := time.Since(began); took != time.Second {
			t.Errorf("drain with a second's context took %v", took)
		}
		r.wantNoSessions("after the drain")
	})
}

func TestAStartDuringADrainDoesNotTakeTheRoom(t *testing.T) {
	inBubble(t, setup{nodes: 2}, func(t *testing.T, r *rig) {
		mute := r.connect(dialing{mute: true}) // at the node that drains
		elsewhere := r.connect(dialing{node: 1})
		mute.deafen() // or the library answers the goodbye and closes before the start is sent
		r.drain(time.Minute, 0)
		mute.send(wire.Start{Token: freshToken("7")})
		r.pass(20 * time.Second)
		elsewhere.wantOpen("the link at the other node")
		if got, want := r.head("7"), int64(2); got != want {
			t.Errorf("the log has %d rows, want %d", got, want)
		}
	})
}
