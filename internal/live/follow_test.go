package live

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

func TestAFollowerIsSentWhatTheLinkIs(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		v := r.follow(following{})
		for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
			if got := v.header.Get(name); got != want {
				t.Errorf("header %s: got %q, want %q", name, got, want)
			}
		}
		if v.retry != "3000" || v.id() != 2 {
			t.Errorf("before any row: got retry %q and id %d, want 3000 and the head, 2", v.retry, v.id())
		}
		began := time.Now()
		r.say("7", "첫 줄")
		r.pass(0)
		r.say("7", "둘째 줄")
		r.pass(time.Second)
		v.wantRun("from now on", 3, 4)
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("a second has taken %v", waited)
		}
		ours, theirs := framesOf[wire.Events](c), framesOf[wire.Events](&v.client)
		if !reflect.DeepEqual(ours[len(ours)-2:], theirs) {
			t.Errorf("the link was sent %v, the follower %v", ours, theirs)
		}
	})
}

func TestAFollowerBeginsWhereItSays(t *testing.T) {
	for _, tt := range []struct {
		name        string
		following   following
		first, last int64
	}{
		{"at a cursor", following{after: seqOf(3)}, 4, 10},
		{"before the very first row", following{after: seqOf(0)}, 1, 10},
		{"at the head", following{after: seqOf(10)}, 11, 10},
		{"with no cursor", following{}, 11, 10},
		{"where the browser says, which wins", following{after: seqOf(3), lastID: seqOf(7)}, 8, 10},
		{"at a cursor of this log", following{after: seqOf(3), log: "LOG"}, 4, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, setup{}, func(t *testing.T, r *rig) {
				r.fill("7", 10)
				v := r.follow(tt.following)
				v.wantRun(tt.name, tt.first, tt.last)
				v.wantOpen(tt.name)
			})
		})
	}
}

func TestACursorOfAnotherLogIsRefusedBeforeTheStream(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.fill("7", 10)
		for name, d := range map[string]following{
			"another log": {log: "OTHER"}, "another log, with a cursor": {log: "OTHER", after: seqOf(1)},
			"beyond the head": {after: seqOf(11)}, "the browser's is beyond the head": {lastID: seqOf(11), after: seqOf(1)},
		} {
			r.follow(d).wantRefused(name, chat.CursorForeign)
		}
		r.wantNoSessions("after the refusals")
		r.wantNoAudience("after the refusals")
	})
}

func TestAFollowerComesBackWithoutAGap(t *testing.T) {
	inBubble(t, setup{nodes: 2}, func(t *testing.T, r *rig) {
		r.connect(dialing{})
		v := r.follow(following{})
		v.drop()
		r.pass(0)
		r.say("7", "자리를 비운 사이")
		next := r.follow(following{from: v, node: 1})
		next.wantRun("though it had seen no row", 3, 3)
		r.say("7", "넷")
		next.drop()
		r.pass(time.Second)
		r.say("7", "다섯")
		third := r.follow(following{from: next})
		third.wantRun("the third time", next.id()+1, 5)
		r.pass(time.Second)
		third.drop()
		r.pass(0)
		r.wantNoAudience("when all have gone")
	})
}

// TestWhatIsLoggedWhileAFollowerArrivesReachesIt has rows come in at the two
// moments at which they could be missed: around the reading of the state.
func TestWhatIsLoggedWhileAFollowerArrivesReachesIt(t *testing.T) {
	var r *rig
	hub := func(o *Options) {
		state := o.State
		o.State = func(ctx context.Context, room string) (chat.State, error) {
			r.say("7", "직전")
			st, err := state(ctx, room)
			r.say("7", "직후")
			return st, err
		}
	}
	inBubble(t, setup{hub: hub}, func(t *testing.T, bubble *rig) {
		r = bubble
		r.connect(dialing{})
		v := r.follow(following{after: seqOf(2)})
		r.pass(maxPause)
		v.wantRun("100 ms later, long before the slow timer", 3, 4)
		now := r.follow(following{})
		r.pass(maxPause)
		now.wantRun("with no cursor", 6, 6)
	})
}

func TestFollowersAreSentHeartbeats(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		v := r.follow(following{})
		r.pass(25*time.Second - time.Millisecond)
		if comments, _, _, _ := v.state(); comments != 0 {
			t.Errorf("before 25 s: got %d comments, want none", comments)
		}
		r.pass(time.Hour + time.Millisecond)
		v.wantOpen("after an hour")
		if comments, _, _, _ := v.state(); comments < 143 || comments > 145 {
			t.Errorf("in an hour and 25 s: got %d comments, want 145, or a few less", comments)
		}
	})
}

func TestAFollowerStaysWhenTheBroadcastEnds(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.connect(dialing{})
		v := r.follow(following{})
		r.endBroadcast("7")
		r.pass(time.Hour)
		v.wantOpen("an hour after the end")
		r.connect(dialing{})
		r.say("7", "다시 시작")
		r.pass(time.Second)
		v.wantRun("the next broadcast", 3, 6)
	})
}

func TestAFollowerFarBehindIsToldWhatItIsNotSent(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.grow("7", 5000)
		v := r.follow(following{after: seqOf(10)})
		if _, skips, _, _ := v.state(); skips != 1 {
			t.Errorf("4,990 rows behind: told %d times of rows left out, want once", skips)
		}
		v.wantRun("4,990 rows behind", 4001, 5000)
		near := r.follow(following{after: seqOf(3000)})
		near.wantRun("2,000 rows behind", 3001, 5000)
	})
}

func TestFollowersOfARunningBroadcastSeeNothingBeforeIt(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.fill("7", 10)
		idle := r.follow(following{after: seqOf(3), running: true})
		if _, skips, _, _ := idle.state(); skips != 1 || idle.id() != 10 {
			t.Errorf("nothing runs: skipped %d times, to %d; want once, to the head", skips, idle.id())
		}
		r.connect(dialing{})
		r.say("7", "방송 중")
		r.pass(time.Second)
		idle.wantRun("when one begins", 11, 13)
		late := r.follow(following{after: seqOf(3), running: true})
		late.wantRun("while it runs", 11, 13)
		inside := r.follow(following{after: seqOf(12), running: true})
		if _, skips, _, _ := inside.state(); skips != 0 {
			t.Errorf("inside of the broadcast: skipped %d times, want none", skips)
		}
		inside.wantRun("inside of it", 13, 13)
	})
}

func TestAFollowerThatDoesNotReadIsEndedAndLosesNothing(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.grow("7", 900)
		stuck := r.follow(following{after: seqOf(0), deaf: true})
		r.pass(60*time.Second - time.Millisecond)
		r.wantFigure("before 60 s", "hanmadi_followers", "", 1)
		r.pass(time.Millisecond)
		r.wantFigure("after 60 s", "hanmadi_followers", "", 0)
		r.pass(goodbyeTime)
		r.wantNoSessions("after the goodbye's time")
		r.wantFigure("closes", "hanmadi_follower_closes_total", "too_slow", 1)
		stuck.listen()
		r.pass(0)
		if id := stuck.id(); id >= 900 {
			t.Errorf("the stuck viewer has got everything up to %d, want it stuck", id)
		}
		again := r.follow(following{from: stuck})
		again.wantRun("with its cursor", stuck.id()+1, 900)
	})
}

func TestAFollowerThatReadsSlowlyStays(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.grow("7", 900)
		slow := r.follow(following{after: seqOf(0), pause: 20 * time.Second})
		r.pass(30 * time.Minute)
		slow.wantOpen("after half an hour")
		slow.wantRun("after half an hour", 1, 900)
	})
}

// TestStuckFollowersCostNoMemory has viewers that do not read while 10,000 rows
// come in: no goroutine more, no row kept for later.
func TestStuckFollowersCostNoMemory(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		const followers, rows = 50, 10_000
		hub := r.nodes[0].hub
		for range followers {
			r.follow(following{deaf: true})
		}
		r.grow("7", rows)
		before := runtime.NumGoroutine()
		for i := range rows {
			hub.Nudge("7", int64(i)+1)
		}
		r.pass(time.Second)
		if got := runtime.NumGoroutine(); got > before {
			t.Errorf("%d goroutines before the rows, %d after; want none more", before, got)
		}
		hub.frames.mu.Lock()
		kept := maps.Clone(hub.frames.recent)
		hub.frames.mu.Unlock()
		if len(kept) > 1 || len(kept["7"]) > recentFrames {
			t.Errorf("frames of %d rooms are kept, %d of this one; want %d at most", len(kept), len(kept["7"]), recentFrames)
		}
		r.pass(time.Minute + goodbyeTime)
		r.wantNoSessions("after 60 s without progress")
		r.wantNoAudience("after 60 s without progress")
	})
}

func TestAThousandFollowersShareAFrame(t *testing.T) {
	log := &flaky{Log: newTall()}
	inBubble(t, setup{log: log, hub: func(o *Options) { o.FollowersPerAddress = 1000 }}, func(t *testing.T, r *rig) {
		link := r.connect(dialing{})
		var all []*viewer
		for range 1000 {
			all = append(all, r.follow(following{}))
		}
		link.drop() // its frames may end elsewhere
		r.pass(time.Second)
		before := log.reads.Load()
		const lines = 200
		for range lines {
			r.say("7", "빠르게")
			r.pass(time.Millisecond)
		}
		r.pass(time.Second)
		for _, v := range all {
			v.wantRun("all of it", 3, 2+lines)
		}
		// One every 40 ms: 200 lines in 200 ms are the first, and five that share.
		if frames := log.reads.Load() - before; frames > 6 {
			t.Errorf("%d lines in %d ms were signed in %d frames, want 6 at most", lines, lines, frames)
		}
		if got := len(framesOf[wire.Events](&all[0].client)); got > 6 {
			t.Errorf("a follower was written %d events, want 6 at most", got)
		}
	})
}

func TestALoneLineIsDeliveredAtOnce(t *testing.T) {
	inBubble(t, setup{hub: func(o *Options) { o.PerDelivery = time.Second }}, func(t *testing.T, r *rig) {
		r.connect(dialing{})
		v := r.follow(following{})
		r.pass(maxPause)
		for i := range int64(5) {
			r.say("7", "한 줄")
			r.pass(0)
			v.wantRun("at once", 3, 3+i)
			r.pass(maxPause)
		}
		r.say("7", "한 줄")
		r.pass(0)
		r.say("7", "바로 뒤에")
		r.pass(maxPause - time.Millisecond)
		v.wantRun("the line right after waits", 3, 8)
		r.pass(time.Millisecond)
		v.wantRun("not longer than the pause", 3, 9)
	})
}

func TestTheSlowTimerReachesFollowersToo(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		v := r.follow(following{})
		r.pass(time.Second)
		r.fill("7", 3) // by another process: nobody is nudged
		r.pass(0)
		v.wantRun("at once", 1, 0)
		r.pass(10 * time.Second)
		v.wantRun("10 s later", 1, 3)
	})
}

func TestAFollowerStaysWhileTheLogCannotBeRead(t *testing.T) {
	log := &flaky{Log: newTall()}
	inBubble(t, setup{log: log}, func(t *testing.T, r *rig) {
		r.connect(dialing{})
		v := r.follow(following{})
		r.fill("7", 300)
		log.down.Store(true)
		before := log.reads.Load()
		r.nodes[0].hub.Nudge("7", 302)
		r.pass(10 * time.Minute)
		v.wantOpen("after ten minutes without the log")
		if got := log.reads.Load() - before; got > 2 {
			t.Errorf("the log was read %d times for two nudges", got)
		}
		log.down.Store(false)
		r.pass(10*time.Second + maxPause)
		v.wantRun("when it is back", 3, 302)
	})
}

func TestFollowersAreCapped(t *testing.T) {
	caps := func(o *Options) { o.MaxFollowers, o.FollowersPerUser, o.FollowersPerAddress = 6, 2, 3 }
	inBubble(t, setup{hub: caps}, func(t *testing.T, r *rig) {
		token := freshToken("42")
		first := r.follow(following{token: token, address: "a"})
		r.follow(following{token: token, address: "b"}).wantOpen("the user's second")
		r.follow(following{token: token, address: "c"}).wantRefused("the user's third", chat.FollowersFull)
		for range 3 {
			r.follow(following{address: "a"}).wantOpen("of the address")
		}
		full := r.follow(following{address: "a"})
		full.wantRefused("the address's fourth", chat.FollowersFull)
		if wait, err := time.ParseDuration(full.header.Get("Retry-After")); err != nil || wait < fullFor || wait >= 2*fullFor {
			t.Errorf("told to wait %v, %v; want from %v to twice that", wait, err, fullFor)
		}
		r.follow(following{}).wantOpen("whose address is exempt")
		r.follow(following{}).wantRefused("the node's seventh", chat.FollowersFull)
		first.drop()
		r.pass(0)
		r.follow(following{token: token}).wantOpen("in the place of one that left")
		r.wantFigure("in all", "hanmadi_followers", "", 6)
		r.connect(dialing{}).wantOpen("a link, which is not counted with them")
	})
}

func TestFollowersDoNotTakeTheLinksPlaces(t *testing.T) {
	inBubble(t, setup{hub: func(o *Options) { o.MaxLinks = 1 }}, func(t *testing.T, r *rig) {
		for range 5 {
			r.follow(following{})
		}
		r.connect(dialing{}).wantOpen("the only link")
	})
}

func TestDrainEndsFollowersSpreadLikeLinks(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		var all []*viewer
		for range 10 {
			all = append(all, r.follow(following{}))
		}
		ended := func() (n int) {
			for _, v := range all {
				if _, _, _, over := v.state(); !over.IsZero() {
					n++
				}
			}
			return n
		}
		done := r.drain(time.Minute, 20*time.Second)
		r.follow(following{}).wantRefused("a newcomer", chat.Draining)
		r.pass(10 * time.Second)
		if got := ended(); got < 4 || got > 7 {
			t.Errorf("after 10 of 20 s: got %d of 10 ended, want about half", got)
		}
		r.pass(10 * time.Second)
		if !returned(done) {
			t.Error("after 20 s: drain has not returned though all have gone")
		}
		for _, v := range all {
			v.wantEnded("drained", chat.Draining)
			if _, _, said, _ := v.state(); said != nil && said.RetryAfterS < 1 {
				t.Errorf("told to wait %d s, want at least 1", said.RetryAfterS)
			}
		}
		r.wantFigure("closes", "hanmadi_follower_closes_total", "draining", 10)
		r.wantNoAudience("after the drain")
	})
}

func TestDrainWaitsForAFollowerOnlySoLong(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.grow("7", 900)
		r.follow(following{after: seqOf(0), deaf: true})
		began := time.Now()
		<-r.drain(time.Minute, 0)
		if took := time.Since(began); took > goodbyeTime {
			t.Errorf("drain took %v, want at most %v", took, goodbyeTime)
		}
		r.wantNoSessions("after the drain")
	})
}

// timed is a response that notes the deadlines of its writes.
type timed struct {
	http.ResponseWriter
	by time.Time
}

func (w *timed) SetWriteDeadline(by time.Time) error { w.by = by; return nil }

// TestAWriteThatBeginsLateIsHurriedToo: the end of a stream may come between two
// writes, of which the second sets its own time.
func TestAWriteThatBeginsLateIsHurriedToo(t *testing.T) {
	w := &timed{}
	f := &follower{out: http.NewResponseController(w)}
	now := time.Now()
	if err := f.allow(time.Minute); err != nil || w.by.Before(now.Add(time.Minute)) {
		t.Errorf("while it lives: a write has until %v, %v; want a minute", w.by.Sub(now), err)
	}
	f.hurry(time.Second)
	hurried := w.by
	if err := f.allow(time.Minute); err != nil || !w.by.Equal(hurried) {
		t.Errorf("after the end: a write has until %v, %v; want what was left, %v", w.by.Sub(now), err, hurried.Sub(now))
	}
	f.hurry(time.Hour)
	if !w.by.Equal(hurried) {
		t.Errorf("hurried less: got %v more, want none", w.by.Sub(hurried))
	}
}

func TestDrainDropsFollowersWithItsContext(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.grow("7", 900)
		r.follow(following{after: seqOf(0), deaf: true})
		began := time.Now()
		<-r.drain(time.Second, 0)
		if took := time.Since(began); took != time.Second {
			t.Errorf("drain with a second's context took %v", took)
		}
	})
}

func TestAFollowerEndsSixtySecondsAfterItsToken(t *testing.T) {
	inBubble(t, setup{hub: func(o *Options) { o.Outlive = true }}, func(t *testing.T, r *rig) {
		v := r.follow(following{token: tokenFor("42", time.Now().Add(10*time.Minute))})
		anonymous := r.follow(following{})
		r.pass(11*time.Minute - time.Millisecond)
		v.wantOpen("before 60 s after its end")
		r.pass(time.Second)
		v.wantEnded("60 s after its end", chat.TokenExpired)
		anonymous.wantOpen("who has none")
		if over := r.follow(following{token: "42 0"}); over.code != chat.TokenExpired {
			t.Errorf("with an expired token: got %d %s, want %s", over.status, over.code, chat.TokenExpired)
		}
	})
}

func TestTheLagOfAStuckFollowerIsSeen(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		v := r.follow(following{deaf: true})
		r.follow(following{room: "8"})
		r.grow("7", 900)
		r.nodes[0].hub.Nudge("7", 900)
		r.pass(30 * time.Second)
		r.wantFigure("stuck", "hanmadi_followers", "", 2)
		if rows := r.nodes[0].figure("hanmadi_session_lag_rows", "worst"); rows < 700 || rows > 900 {
			t.Errorf("stuck: %v rows behind, want most of 900", rows)
		}
		r.wantFigure("stuck", "hanmadi_session_lag_seconds", "", 30)
		v.listen()
		r.pass(0)
		r.wantFigure("read again", "hanmadi_session_lag_rows", "all", 0)
		r.wantFigure("read again", "hanmadi_follower_rows_total", "", 900)
	})
}

// wantNoAudience fails while a hub holds on to anything of its followers.
func (r *rig) wantNoAudience(when string) {
	r.t.Helper()
	for i, n := range r.nodes {
		n.hub.mu.Lock()
		audiences, seats, following := len(n.hub.audiences), len(n.hub.seats), n.hub.following.Load()
		n.hub.mu.Unlock()
		if audiences != 0 || seats != 0 || following != 0 {
			r.t.Errorf("%s: node %d has %d audiences, %d seats, %d followers; want none", when, i, audiences, seats, following)
		}
	}
}
