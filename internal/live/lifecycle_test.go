package live

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

func TestALinkThatAnswersItsHeartbeatsLives(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		r.pass(25*time.Second - time.Millisecond)
		if got := len(framesOf[wire.Heartbeat](c)); got != 0 {
			t.Errorf("before 25 s: got %d heartbeats, want none", got)
		}
		r.pass(time.Hour - 25*time.Second + time.Millisecond)
		if got, want := len(framesOf[wire.Heartbeat](c)), int(time.Hour/(25*time.Second)); got != want {
			t.Errorf("in an hour: got %d heartbeats, want %d", got, want)
		}
		r.say("7", "아직 있어요")
		r.pass(0)
		c.wantOpen("after an hour")
		c.wantRun("after an hour", 1, 3)
	})
}

func TestALinkThatLeavesHeartbeatsUnansweredIsClosedAtTheThird(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{silent: true})
		r.pass(75*time.Second - time.Millisecond)
		c.wantOpen("before 75 s")
		if got := len(framesOf[wire.Heartbeat](c)); got != 2 {
			t.Errorf("before 75 s: got %d heartbeats, want 2", got)
		}
		r.pass(time.Millisecond)
		c.wantClosed("at 75 s", wire.CloseSilent, chat.LinkSilent)
		r.wantNoSessions("after it")
	})
}

func TestAnyFrameCountsAsLife(t *testing.T) {
	for name, f := range map[string]string{
		"heartbeat": `{"type":"heartbeat"}`, "ping": "ping", "relayed": `{"type":"relayed","seq":2}`,
		"unknown type": `{"type":"from-the-future"}`, "token": `{"type":"token","token":"7 99999999999"}`,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				c := r.connect(dialing{silent: true})
				for range 60 {
					r.pass(49 * time.Second) // with two heartbeats in it at most
					c.write(websocket.MessageText, []byte(f))
				}
				c.wantOpen("after " + (60 * 49 * time.Second).String())
				r.pass(75 * time.Second)
				c.wantClosed("when it has fallen silent", wire.CloseSilent, chat.LinkSilent)
			})
		})
	}
}

// TestHeartbeatsKeepTheirTimeHoweverLinksStart has links that start off the
// wheel's whole seconds, in numbers that fill its slots.
func TestHeartbeatsKeepTheirTimeHoweverLinksStart(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		var all []*client
		for i := range 100 {
			all = append(all, r.connect(dialing{user: fmt.Sprint("u", i)}))
			r.pass(330 * time.Millisecond)
		}
		counted := make([]int, len(all))
		for i, c := range all {
			counted[i] = len(framesOf[wire.Heartbeat](c))
		}
		r.pass(26 * 10 * time.Second)
		for i, c := range all {
			c.wantOpen(c.room)
			if got := len(framesOf[wire.Heartbeat](c)) - counted[i]; got < 10 || got > 11 {
				t.Errorf("link %d: got %d heartbeats in 260 s, want 10 or 11", i, got)
			}
		}
	})
}

func TestALinkEndsSixtySecondsAfterItsToken(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{token: tokenFor("7", time.Now().Add(10*time.Minute)), frame: true})
		r.pass(11*time.Minute - time.Millisecond)
		c.wantOpen("before 60 s after its end")
		r.pass(time.Second)
		c.wantClosed("60 s after its end", wire.CloseTokenExpired, chat.TokenExpired)
	})
}

func TestAFreshTokenRenewsALink(t *testing.T) {
	for name, when := range map[string]time.Duration{
		"before the end": 9 * time.Minute, "in the minute after it": 10*time.Minute + 59*time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				c := r.connect(dialing{token: tokenFor("7", time.Now().Add(10*time.Minute))})
				r.pass(when)
				c.send(wire.Token{Token: tokenFor("7", time.Now().Add(30*time.Minute))})
				r.pass(30 * time.Minute)
				c.wantOpen("at the fresh token's end")
				r.pass(61 * time.Second)
				c.wantClosed("60 s after it", wire.CloseTokenExpired, chat.TokenExpired)
			})
		})
	}
}

func TestATokenFrameThatDoesNotHoldEndsTheLink(t *testing.T) {
	for _, tt := range []struct {
		name, token string
		code        wire.CloseCode
		refusal     chat.Code
	}{
		{"another user's", "8 99999999999", wire.CloseBadToken, chat.TokenMismatch},
		{"forged", "forged", wire.CloseBadToken, chat.TokenInvalid},
		{"missing", "", wire.CloseBadToken, chat.TokenMissing},
		{"expired", "7 0", wire.CloseTokenExpired, chat.TokenExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				c := r.connect(dialing{})
				c.send(wire.Token{Token: tt.token})
				r.pass(0)
				c.wantClosed(tt.name, tt.code, tt.refusal)
			})
		})
	}
}

func TestALinkThatMayOutlivesItsToken(t *testing.T) {
	outlive := func(o *Options) { o.Outlive = true }
	inBubble(t, setup{hub: outlive}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{token: tokenFor("7", time.Now().Add(time.Minute))})
		r.pass(time.Hour)
		c.wantOpen("an hour after")
	})
}

func TestALinkEndsSixtySecondsAfterItsBroadcast(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		r.pass(7 * time.Second)
		r.endBroadcast("7")
		r.pass(60*time.Second - time.Millisecond)
		c.wantOpen("before 60 s")
		c.wantRun("the end is told", 1, 3)
		r.pass(time.Second)
		c.wantClosed("60 s after the end", wire.CloseBroadcastEnded, chat.BroadcastEndedCode)
	})
}

func TestANewBroadcastWithinSixtySecondsKeepsTheLink(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		r.endBroadcast("7")
		r.pass(59 * time.Second)
		r.startBroadcast("7", "next")
		r.pass(time.Hour)
		c.wantOpen("an hour after")
		c.wantRun("both are told", 1, 4)

		r.endBroadcast("7")
		r.pass(59 * time.Second)
		c.wantOpen("59 s after the second end")
		r.pass(2 * time.Second)
		c.wantClosed("61 s after it", wire.CloseBroadcastEnded, chat.BroadcastEndedCode)
	})
}

func TestAReplacedBroadcastKeepsTheLink(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		r.startBroadcast("7", "next") // ends the one that the link opened
		r.pass(time.Hour)
		c.wantOpen("an hour after")
		c.wantRun("the end and the start are told", 1, 4)
	})
}

func TestBroadcastsThatEndedLongAgoDoNotEndALinkThatReadsOfThem(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		openBroadcast(t, r.log, "7", "old")
		r.endBroadcast("7")
		r.pass(time.Hour)
		c := r.connect(dialing{after: seqOf(0)})
		r.pass(time.Hour)
		c.wantOpen("an hour after")
		c.wantRun("from the old broadcast on", 1, 4)
	})
}

func (r *rig) endBroadcast(room string) {
	r.t.Helper()
	ended, err := r.nodes[0].desk.EndBroadcast(context.Background(), room, chat.User{Role: chat.RoleOperator}, "operator", nil)
	if err != nil || !ended {
		r.t.Fatalf("end the broadcast of room %s: got %v, %v", room, ended, err)
	}
}

func (r *rig) startBroadcast(room, id string) {
	r.t.Helper()
	_, fresh, err := r.nodes[0].desk.StartBroadcast(context.Background(), room, chat.User{Role: chat.RoleOperator}, chat.Opening{ID: id})
	if err != nil || !fresh {
		r.t.Fatalf("start broadcast %s of room %s: got %v, %v", id, room, fresh, err)
	}
}
