package live

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// said is what a page sends, and what is to become of its link.
type said struct {
	name    string
	kind    websocket.MessageType // 0 means text
	data    string
	code    wire.CloseCode // 0: the link stays open
	refusal chat.Code
}

func (s said) send(c *client) {
	kind := s.kind
	if kind == 0 {
		kind = websocket.MessageText
	}
	c.write(kind, []byte(s.data))
}

// padded is a frame of a type that nobody knows, of a length.
func padded(length int) string {
	const empty = `{"type":"from-the-future","pad":""}`
	return strings.Replace(empty, `""`, `"`+strings.Repeat("x", length-len(empty))+`"`, 1)
}

func TestTheFirstFrameMustBeAStartThatHolds(t *testing.T) {
	start := func(token, more string) string { return fmt.Sprintf(`{"type":"start","token":%q%s}`, token, more) }
	day := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC) // a bubble begins on the day before
	good := tokenFor("7", day)
	for _, tt := range []said{
		{name: "a good start", data: start(good, "")},
		{name: "a start with what is not known yet", data: start(good, `,"future":{"x":[1]}`)},
		{name: "another frame", data: `{"type":"relayed","seq":1}`, code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "ping", data: "ping", code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "an unknown type", data: `{"type":"from-the-future"}`, code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "bad JSON", data: `{"type":"start",`, code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "nothing", data: "", code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "not UTF-8", data: start("\xff", ""), code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "a binary message", kind: websocket.MessageBinary, data: start(good, ""), code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "over 8 KiB", data: padded(wire.MaxClientFrame + 1), code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "far over 8 KiB", data: padded(1 << 20), code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "a negative cursor", data: start(good, `,"after":-1`), code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "the role standby", data: start(good, `,"role":"standby"`), code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "no token", data: `{"type":"start"}`, code: wire.CloseBadToken, refusal: chat.TokenMissing},
		{name: "a bad token", data: start("forged", ""), code: wire.CloseBadToken, refusal: chat.TokenInvalid},
		{name: "an expired token", data: start(tokenFor("7", day.AddDate(0, 0, -1)), ""), code: wire.CloseTokenExpired, refusal: chat.TokenExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				c := r.connect(dialing{mute: true})
				r.pass(9 * time.Second)
				tt.send(c)
				r.pass(0)
				if tt.code == 0 {
					r.pass(time.Minute)
					c.wantOpen(tt.name)
					c.wantRun(tt.name, 1, 2)
					return
				}
				c.wantClosed(tt.name, tt.code, tt.refusal)
				c.wantRun(tt.name, 1, 0)
				if got := r.head("7"); got != 0 {
					t.Errorf("%s: the log has %d rows, want none", tt.name, got)
				}
			})
		})
	}
}

func TestALinkWithoutAStartFrameIsClosedAfterTenSeconds(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{mute: true})
		r.pass(10*time.Second - time.Millisecond)
		c.wantOpen("before 10 s")
		r.pass(time.Millisecond)
		c.wantClosed("at 10 s", wire.CloseProtocol, chat.FrameInvalid)
		r.wantNoSessions("after it")
	})
}

func TestAPeerThatSaysNothingAndReadsNothingIsForgotten(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.connect(dialing{mute: true, deaf: true})
		r.pass(10*time.Second + 2*goodbyeTime)
		r.wantNoSessions("after the time for a start and for a goodbye")
	})
}

func TestWhatAPageSaysOnALivingLink(t *testing.T) {
	for _, tt := range []said{
		{name: "heartbeat", data: `{"type":"heartbeat"}`},
		{name: "relayed", data: `{"type":"relayed","seq":1}`},
		{name: "an unknown type", data: `{"type":"from-the-future","text":"안녕"}`},
		{name: "no type", data: `{}`},
		{name: "8 KiB", data: padded(wire.MaxClientFrame)},
		{name: "over 8 KiB", data: padded(wire.MaxClientFrame + 1), code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "far over 8 KiB", data: padded(1 << 20), code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "a binary message", kind: websocket.MessageBinary, data: `{"type":"heartbeat"}`, code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "bad JSON", data: `{"type":`, code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "nothing", data: "", code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "an array", data: `[]`, code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "not UTF-8", data: "{\"type\":\"x\",\"a\":\"\xff\"}", code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "relayed with no seq", data: `{"type":"relayed"}`, code: wire.CloseProtocol, refusal: chat.FrameInvalid},
		{name: "a second start", data: `{"type":"start","token":"7 99999999999"}`, code: wire.CloseProtocol, refusal: chat.FrameInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				c := r.connect(dialing{})
				tt.send(c)
				r.pass(0)
				if tt.code != 0 {
					c.wantClosed(tt.name, tt.code, tt.refusal)
					return
				}
				r.say("7", "그 다음 줄")
				r.pass(0)
				c.wantOpen(tt.name)
				c.wantRun(tt.name, 1, 3)
			})
		})
	}
}

func TestPingIsAnsweredPong(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		c.send(wire.Ping{})
		r.pass(0)
		if got := len(framesOf[wire.Pong](c)); got != 1 {
			t.Errorf("got %d pongs to one ping, want 1", got)
		}
	})
}

func TestATokenInTheHeaderIsRefusedAfterTheUpgrade(t *testing.T) {
	for _, tt := range []struct {
		name, token string
		code        wire.CloseCode
		refusal     chat.Code
	}{
		{"a bad token", "forged", wire.CloseBadToken, chat.TokenInvalid},
		{"an expired token", "7 0", wire.CloseTokenExpired, chat.TokenExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				c := r.connect(dialing{token: tt.token})
				c.wantClosed(tt.name, tt.code, tt.refusal)
				if len(c.got) != 1 {
					t.Errorf("got frames %v, want the error alone", c.got)
				}
				r.wantNoSessions(tt.name)
			})
		})
	}
}

func TestThirtyLinkAttemptsAMinuteAndUser(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		for i := range 30 {
			c := r.connect(dialing{frame: i%2 == 0})
			c.wantOpen(fmt.Sprintf("attempt %d", i+1))
		}
		refused := r.connect(dialing{})
		told := refused.wantClosed("attempt 31", wire.CloseTooManyAttempts, chat.RateRequests)
		if told.RetryAfterS < 1 || told.RetryAfterS > 60 {
			t.Errorf("told to wait %d s, want 1 to 60", told.RetryAfterS)
		}
		other := r.connect(dialing{user: "8"})
		other.wantOpen("another user")

		r.pass(time.Duration(told.RetryAfterS)*time.Second - time.Millisecond)
		early := r.connect(dialing{})
		early.wantClosed("just before the wait is over", wire.CloseTooManyAttempts, chat.RateRequests)
		r.pass(time.Millisecond)
		again := r.connect(dialing{})
		again.wantOpen("after the wait")
		r.connect(dialing{}).wantClosed("right after it", wire.CloseTooManyAttempts, chat.RateRequests)
		again.wantOpen("a refused attempt of the same user")
		r.pass(time.Minute)
		for i := range 30 {
			r.connect(dialing{}).wantOpen(fmt.Sprintf("attempt %d of a new minute", i+1))
		}
	})
}

func TestLinksBeyondTheNodesCapAreTurnedAway(t *testing.T) {
	capped := func(o *Options) { o.MaxLinks = 3 }
	inBubble(t, setup{hub: capped}, func(t *testing.T, r *rig) {
		mute := r.connect(dialing{mute: true}) // counts, though it has not started
		r.connect(dialing{user: "1"})
		r.connect(dialing{user: "2"})
		told := r.connect(dialing{user: "3"}).wantClosed("the fourth", wire.CloseTooManyAttempts, chat.Overloaded)
		if told.RetryAfterS != 10 {
			t.Errorf("told to wait %d s, want 10", told.RetryAfterS)
		}
		mute.drop()
		r.pass(0)
		r.connect(dialing{user: "3"}).wantOpen("when one has gone")
	})
}

// TestErrorSentencesAreInTheLanguageOfTheArrival has the rig's English in all
// other tests; here is where it comes from.
func TestErrorSentencesAreWrittenForPeople(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		c.write(websocket.MessageText, []byte("[]"))
		r.pass(0)
		told := c.wantClosed("an array", wire.CloseProtocol, chat.FrameInvalid)
		if want := "The frame cannot be read (not an object)."; told.Detail != want {
			t.Errorf("got %q, want %q", told.Detail, want)
		}
	})
}

// wantNoSessions fails while a hub holds on to a connection.
func (r *rig) wantNoSessions(when string) {
	r.t.Helper()
	for i, n := range r.nodes {
		n.hub.mu.Lock()
		sessions, rooms := len(n.hub.sessions), len(n.hub.rooms)
		n.hub.mu.Unlock()
		if sessions != 0 || rooms != 0 {
			r.t.Errorf("%s: node %d has %d sessions in %d rooms, want none", when, i, sessions, rooms)
		}
	}
}
