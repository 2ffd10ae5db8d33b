package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// day is a platform, the apps on it, and what was said so far.
type day struct {
	*platform
	t       *testing.T
	viewers []*viewer
	old     *presenterApp
	own     *presenterApp
	next    atomic.Int64 // number of the next line
	lastYes time.Time    // when the room server last said that 9, who has no link, is live
}

// The sentences of the original platform that the day meets.
const (
	oldNotLive     = "해당 스트리머는 현재 방송 중이지 않습니다."
	oldNoDirectory = "방송 상태를 확인하지 못했습니다. 잠시 후 다시 보내 주세요."
)

// TestPlatformDay is a day on a platform, from before it goes live to after its
// end, while each of its services fails in turn. Two old apps and two new ones
// are there all day, everything goes through nginx, and in the end every line
// that was answered with success has been seen by the presenter's app, in order.
func TestPlatformDay(t *testing.T) {
	p := newPlatform(t, "nginx")
	presenter := p.issuer.token(t, "7", "방송자")
	d := &day{platform: p, t: t, old: p.oldApp(presenter), own: p.newApp(presenter),
		viewers: []*viewer{p.oldViewer(p.issuer.token(t, "42", "하늘")), p.newViewer("43")}}

	d.beforeLive()
	d.oldAppOnAir()
	d.roomServerFails()
	d.newAppTakesOver()
	d.networkIsLost()
	d.signallingFails()
	d.issuerFails()
	d.nginxRestarts()
	d.lastAnswerIsOld()
	d.hanmadiIsKilled()
	d.oldAppTakesOver()
	d.end()
}

// while has both viewers say lines as long as something runs, then hushes them
// and waits for their last answers.
func (d *day) while(something func()) {
	d.t.Helper()
	ctx, hush := context.WithCancel(d.t.Context())
	defer hush()
	var talking sync.WaitGroup
	for _, v := range d.viewers {
		talking.Go(func() { v.run(ctx, &d.next) })
	}
	something()
	hush()
	talking.Wait()
}

// talk has them do so until enough is true, and wants no line refused.
func (d *day) talk(what string, enough func() bool) {
	d.t.Helper()
	before := []int{d.viewers[0].count(), d.viewers[1].count()}
	reached := false
	d.while(func() {
		reached = within(patience, func() bool {
			return d.viewers[0].count() >= before[0]+5 && d.viewers[1].count() >= before[1]+5 && enough()
		})
	})
	for _, v := range d.viewers {
		if len(v.faults)+len(v.codes) > 0 {
			d.t.Fatalf("%s: the %s viewer was refused %v, and got %q", what, v.name, v.codes, v.faults)
		}
	}
	if !reached {
		d.t.Fatalf("%s: lines are not taken, or what is waited for does not come about", what)
	}
}

func always() bool { return true }

// said reads every line of the room from the log.
func (d *day) said() (lines []string) {
	d.t.Helper()
	for after := int64(0); ; {
		var page struct {
			Events []event
			Next   *int64
		}
		if status := request(d.t, http.MethodGet, d.gateway.url(fmt.Sprintf("/v1/rooms/7/events?after=%d&limit=200", after)), "", "", &page); status != http.StatusOK {
			d.t.Fatalf("reading the log: status %d", status)
		}
		for _, e := range page.Events {
			if e.Kind == "message" {
				lines = append(lines, e.Text)
			}
		}
		if page.Next == nil {
			return lines
		}
		after = *page.Next
	}
}

// allSeen holds what the log says against what the viewers were answered, and
// what an app has seen against the log from a line on.
func (d *day) allSeen(what string, a *presenterApp, from int) {
	d.t.Helper()
	lines := d.said()
	for _, v := range d.viewers {
		var logged []string
		for _, line := range lines {
			if slices.Contains(v.answered, line) {
				logged = append(logged, line)
			}
			if slices.Contains(v.refused, line) {
				d.t.Fatalf("%s: %q was refused and is in the log", what, line)
			}
		}
		if !slices.Equal(logged, v.answered) {
			d.t.Fatalf("%s: the %s viewer was answered %q; of these the log has %q", what, v.name, v.answered, logged)
		}
	}
	want := lines[from:]
	if !within(patience, func() bool { return len(a.seen()) >= len(want) }) || !slices.Equal(a.seen(), want) {
		d.t.Fatalf("%s: the app has seen %d lines, want the log's last %d:\n got %q\nwant %q", what, len(a.seen()), len(want), a.seen(), want)
	}
	a.wantFaultless()
}

// metric reads a number of the program's.
func (d *day) metric(name string) float64 {
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.hanmadi.adminURL("/metrics"), nil)
	if err != nil {
		d.t.Error(err)
		return -1
	}
	dump, err := fresh.Do(req)
	if err != nil {
		return -1
	}
	defer dump.Body.Close()
	text, err := httputil.DumpResponse(dump, true)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return n
		}
	}
	return -1
}

// beforeLive: the room server's no is what both viewers hear, and a line that
// comes before the presenter's socket waits for it.
func (d *day) beforeLive() {
	d.t.Helper()
	if got := d.oldSay("너무 이른 줄", "Token", d.viewers[0].bearer()); got.code != oldNotLive {
		d.t.Errorf("before the broadcast, old: got %+v, want %s", got, oldNotLive)
	}
	if got := d.post(d.gateway.url(linePath), `{"text":"too early"}`, "Cookie", "session=43"); got.status != 410 || got.refusal.Code != "broadcast.ended" {
		d.t.Errorf("before the broadcast, new: got %d %s, want 410 broadcast.ended", got.status, got.body)
	}
	d.roomServer.live("7", 881)
	eventually(d.t, "the room server's yes is heard", func() bool { // a no is believed for a second
		got := d.post(d.gateway.url(linePath), `{"text":"first"}`, "Cookie", "session=43")
		return got.status == http.StatusCreated && strings.Contains(got.body, `"delivery":"queued"`)
	})
	eventually(d.t, "the presenter is asked to connect", func() bool { return strings.Contains(d.signalling.err.String(), "presenter 7 (no_link): fresh true") })
}

func (d *day) oldAppOnAir() {
	d.t.Helper()
	d.old.on(atOnce)
	d.awaitLinkSince("7")
	d.talk("an old app on air", always)
	d.allSeen("an old app on air", d.old, 0)
}

// roomServerFails: while it fails, a linked presenter is live, one that was
// never heard of is not known to be.
func (d *day) roomServerFails() {
	d.t.Helper()
	d.roomServer.live("9", 883)
	d.lastYes = time.Now()
	if got := d.sayTo9(); got.status != http.StatusCreated {
		d.t.Errorf("to a presenter who is live and has no link: got %d %s, want 201", got.status, got.body)
	}
	d.roomServer.muteOn("9")
	const errors = `hanmadi_directory_request_seconds_count{outcome="error"}`
	fail := func(how string) {
		before := d.metric(errors)
		d.talk("the room server is "+how, func() bool { return d.metric(errors) > before })
		if got := d.post(d.gateway.url("/v1/rooms/8/messages"), `{"text":"hello"}`, "Cookie", "session=43"); got.status != 503 || got.refusal.Code != "directory.unavailable" || got.header.Get("Retry-After") == "" {
			d.t.Errorf("room 8 while the room server is %s: got %d %s, want 503 directory.unavailable", how, got.status, got.body)
		}
		if got := d.post(d.gateway.url("/send/message"), `{"presenterIdx":8,"textMessage":"hello"}`, "Cookie", "session=43"); got.status != 400 || !strings.Contains(got.body, oldNoDirectory) {
			d.t.Errorf("room 8 while the room server is %s, old: got %d %s, want 400 %s", how, got.status, got.body, oldNoDirectory)
		}
	}
	for how, misbehave := range misbehaviours {
		d.roomServer.fails(misbehave)
		fail(how)
	}
	d.roomServer.down()
	fail("down")
	got := d.sayTo9()
	if within30 := time.Since(d.lastYes) < 30*time.Second; got.status != http.StatusCreated && within30 {
		d.t.Errorf("by the room server's last answer: got %d %s, want 201", got.status, got.body)
	}
	d.roomServer.isWell()
	d.roomServer.up()
	const ok = `hanmadi_directory_request_seconds_count{outcome="ok"}`
	before := d.metric(ok)
	d.talk("the room server is back", func() bool { return d.metric(ok) > before })
	d.allSeen("after the room server's failures", d.old, 0)
}

// sayTo9 says a line to a presenter who is live and has no link.
func (d *day) sayTo9() answer {
	d.t.Helper()
	return d.post(d.gateway.url("/v1/rooms/9/messages"), `{"text":"is anybody there?"}`, "Cookie", "session=43")
}

// lastAnswerIsOld: nothing was heard of 9 since the room server failed for it,
// and half a minute later nothing is known any more.
func (d *day) lastAnswerIsOld() {
	d.t.Helper()
	if !within(30*time.Second+patience, func() bool { return d.sayTo9().refusal.Code == "directory.unavailable" }) {
		d.t.Errorf("%s after the room server's last answer: got %s, want 503 directory.unavailable", time.Since(d.lastYes), d.sayTo9().body)
	}
	if since := time.Since(d.lastYes); since < 30*time.Second {
		d.t.Errorf("the room server's last answer held for %s, want 30 s", since)
	}
}

// newAppTakesOver: the app of ours gets everything since the broadcast began.
func (d *day) newAppTakesOver() {
	d.t.Helper()
	d.own.on(atOnce)
	d.old.sentAway(d.t)
	codes, told := d.old.endings()
	if last := codes[len(codes)-1]; last != 4500 || !strings.HasPrefix(told, `{"id":"error","message":"`) {
		d.t.Errorf("the old app was told %s and closed with %d, want an error and 4500", told, last)
	}
	d.talk("a new app on air", always)
	d.allSeen("a new app on air", d.own, 0)
	d.own.turnOff()
}

// networkIsLost: the presenter's link is cut, lines wait, the signalling server
// calls the page, and it gets what it missed.
func (d *day) networkIsLost() {
	d.t.Helper()
	d.own.on(d.own.whenCalled)
	d.awaitLinkSince("7")
	d.own.cut()
	d.talk("the presenter's network is lost", d.linked)
	d.allSeen("after the presenter's network was lost", d.own, 0)
}

// linked reports whether the room has a link.
func (d *day) linked() bool {
	var view struct{ Linked bool }
	return request(d.t, http.MethodGet, d.gateway.url("/v1/rooms/7"), "", "", &view) == http.StatusOK && view.Linked
}

// signallingFails: nobody can call the presenter then, and every line is taken
// all the same; they are shown when the server is back.
func (d *day) signallingFails() {
	d.t.Helper()
	const failed = `hanmadi_hooks_total{hook="reconnect",outcome="failed"}`
	d.signalling.kill()
	before := d.metric(failed)
	d.own.cut()
	d.talk("the signalling server is down", func() bool { return d.metric(failed) > before })
	if d.linked() {
		d.t.Error("the presenter is back, and nobody called")
	}
	d.signalling.up()
	d.talk("the signalling server is back", d.linked)
	d.allSeen("after the signalling server was down", d.own, 0)
	d.own.turnOff()
	d.own.on(atOnce)
	d.awaitLinkSince("7")
}

// issuerFails: tokens of a new key hold as soon as they come, and those of known
// keys while nobody can be asked for keys.
func (d *day) issuerFails() {
	d.t.Helper()
	d.issuer.rotate(d.t, "RS256")
	rotated := d.issuer.token(d.t, "42", "하늘")
	eventually(d.t, "a token of the new key holds", func() bool {
		return d.oldSay("새 열쇠", "Token", rotated).logged
	})
	d.issuer.down()
	d.talk("the issuer is down, tokens of the old key", always)
	d.viewers[0].setToken(rotated)
	d.talk("the issuer is down, tokens of the new key", always)
	d.issuer.up()
	d.allSeen("after the issuer was down", d.own, 0)
}

// nginxRestarts: links come back, and who has a key learns what became of a line.
func (d *day) nginxRestarts() {
	d.t.Helper()
	d.while(func() {
		pause(d.t.Context(), 200*time.Millisecond)
		d.gateway.signal(syscall.SIGTERM)
		d.gateway.wait()
		d.gateway.start()
	})
	d.awaitLinkSince("7")
	d.talk("nginx is back", always)
	d.allSeen("after nginx was restarted", d.own, 0)
}

// hanmadiIsKilled: what was answered before is there after, in its place.
func (d *day) hanmadiIsKilled() {
	d.t.Helper()
	d.while(func() {
		pause(d.t.Context(), 300*time.Millisecond)
		d.hanmadi.kill()
		d.hanmadi.start()
	})
	d.awaitLinkSince("7")
	d.talk("hanmadi is back", always)
	d.allSeen("after hanmadi was killed", d.own, 0)
}

// oldAppTakesOver: its place is gone with the process, so it starts from now; it
// goes on where it stood when it comes back.
func (d *day) oldAppTakesOver() {
	d.t.Helper()
	from := len(d.said())
	d.old.forget()
	d.old.on(atOnce)
	d.own.sentAway(d.t)
	d.talk("an old app takes the room back", always)
	d.allSeen("an old app takes the room back", d.old, from)
	d.old.turnOff()
	eventually(d.t, "the old app is gone", func() bool { return !d.linked() })
	d.talk("the old app is away", always)
	d.old.on(atOnce)
	d.allSeen("the old app is back", d.old, from)
}

// end: an explicit no holds, linked or not, and nothing is logged behind it.
func (d *day) end() {
	d.t.Helper()
	d.roomServer.live("7", 0)
	eventually(d.t, "the room server's no is heard", func() bool {
		return d.post(d.gateway.url(linePath), `{"text":"late"}`, "Cookie", "session=43").refusal.Code == "broadcast.ended"
	})
	before := d.said()
	if got := d.oldSay("늦은 줄", "Token", d.viewers[0].bearer()); got.code != oldNotLive {
		d.t.Errorf("after the end, old: got %+v, want %s", got, oldNotLive)
	}
	if after := d.said(); !slices.Equal(after, before) {
		d.t.Errorf("a line was logged after the end: %q", after[len(before):])
	}
	d.old.turnOff()
	d.hanmadi.stop()
	d.old.wantFaultless()
	d.own.wantFaultless()
}
