package live

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// crowded is a rig whose links count against the address that they name.
type crowded struct {
	*rig
	answers atomic.Pointer[chat.Refusal] // of the last upgrade that was refused
	told    atomic.Int64                 // calls of OnRefused
}

func inCrowd(t *testing.T, change func(*Options), test func(t *testing.T, c *crowded)) {
	t.Helper()
	inBubble(t, setup{hub: change}, func(t *testing.T, r *rig) {
		c := &crowded{rig: r}
		r.nodes[0].server.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			a := Arrival{Lang: chat.English, Address: req.Header.Get("Address"), OnRefused: func(error) { c.told.Add(1) }}
			if raw := req.Header.Get("Token"); raw != "" {
				user, err := verify(raw)
				if a.User = &user; err != nil {
					a.User, a.Refused = nil, err
				}
			}
			var ref *chat.Refusal
			if err := r.nodes[0].hub.Accept(w, req, a); errors.As(err, &ref) {
				c.answers.Store(ref)
				w.WriteHeader(chat.Lookup(ref.Code).Status)
			}
		})
		test(t, c)
	})
}

// dial opens a socket from an address; without a token it says nothing.
func (c *crowded) dial(address, token string) *websocket.Conn {
	header := http.Header{"Address": {address}}
	if token != "" {
		header.Set("Token", token)
	}
	ws, _, err := websocket.Dial(context.Background(), "ws://node/v1/presenter", &websocket.DialOptions{HTTPClient: c.nodes[0].dialer, HTTPHeader: header})
	if err != nil {
		return nil
	}
	go func() { // answers the close
		for err := error(nil); err == nil; _, _, err = ws.Read(context.Background()) {
		}
	}()
	synctest.Wait()
	return ws
}

func (c *crowded) want(what string, got *websocket.Conn, open bool) {
	c.t.Helper()
	switch ref := c.answers.Swap(nil); {
	case open != (got != nil):
		c.t.Errorf("%s: open %t, want %t", what, got != nil, open)
	case !open && (ref == nil || ref.Code != chat.RateRequests || ref.RetryAfter <= 0):
		c.t.Errorf("%s: refused with %v, want rate.requests and when to try again", what, ref)
	}
}

func TestLinksPerAddress(t *testing.T) {
	inCrowd(t, func(o *Options) { o.PerAddress = 2 }, func(t *testing.T, c *crowded) {
		first := c.dial("192.0.2.1", freshToken("1"))
		c.want("the first", first, true)
		second := c.dial("192.0.2.1", freshToken("2"))
		c.want("the second", second, true)
		c.want("the third", c.dial("192.0.2.1", freshToken("3")), false)
		other := c.dial("192.0.2.2", freshToken("3"))
		c.want("another address", other, true)
		exempt := []*websocket.Conn{c.dial("", freshToken("4")), c.dial("", freshToken("5")), c.dial("", freshToken("6"))}
		for _, ws := range exempt {
			c.want("no address", ws, true)
		}
		_ = first.CloseNow()
		synctest.Wait()
		third := c.dial("192.0.2.1", freshToken("3"))
		c.want("after the first has left", third, true)
		for _, ws := range append(exempt, second, other, third) {
			_ = ws.CloseNow()
		}
		synctest.Wait()
		if left := c.nodes[0].hub.addresses; len(left) != 0 {
			t.Errorf("all have left, and these are counted: %v", left)
		}
	})
}

func TestUnstartedLinksPerAddress(t *testing.T) {
	inCrowd(t, func(o *Options) { o.Unstarted = 2 }, func(t *testing.T, c *crowded) {
		var all []*websocket.Conn
		dial := func(token string) *websocket.Conn {
			ws := c.dial("192.0.2.1", token)
			if ws != nil {
				all = append(all, ws)
			}
			return ws
		}
		for _, user := range []string{"1", "2", "3"} {
			c.want("a link with a token", dial(freshToken(user)), true)
		}
		first := dial("")
		c.want("the first that says nothing", first, true)
		c.want("one whose token is bad, and which is told so and closed", dial("!"), true)
		c.want("the second that says nothing", dial(""), true)
		c.want("a third that has not started", dial(""), false)
		c.want("one with a token, beside them", dial(freshToken("4")), true)

		if err := first.Write(context.Background(), websocket.MessageText, []byte(`{"type":"start","token":"`+freshToken("5")+`"}`)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.want("once the first has started", dial(""), true)
		c.want("and one more", dial(""), false)

		time.Sleep(time.Minute) // those that say nothing are closed
		synctest.Wait()
		if got, want := c.nodes[0].hub.addresses["192.0.2.1"], (crowd{links: 5}); got != want {
			t.Errorf("counted: %+v, want %+v", got, want)
		}
		if got := c.told.Load(); got != 1 {
			t.Errorf("%d refusals were told, want that of the bad token", got)
		}
		for _, ws := range all {
			_ = ws.CloseNow()
		}
		synctest.Wait()
		if left := c.nodes[0].hub.addresses; len(left) != 0 {
			t.Errorf("all have left, and these are counted: %v", left)
		}
	})
}
