package main

import (
	"fmt"
	"testing"
	"time"
)

// audit holds what senders were told and presenters were shown against the log
// as it stands in the end. It knows the rules and nothing of the program.
func audit(logs map[string][]event, senders []*sender, presenters []*presenter) (faults []string) {
	for _, room := range sortedKeys(logs) {
		faults = append(faults, auditRoom(room, logs[room])...)
	}
	byText := map[string][]event{}
	for _, room := range sortedKeys(logs) {
		for _, e := range logs[room] {
			if e.Kind == "message" {
				byText[room+"\x00"+e.Text] = append(byText[room+"\x00"+e.Text], e)
			}
		}
	}
	for _, s := range senders {
		for _, u := range s.said {
			at := u.room + "\x00" + u.text
			if fault := auditUtterance(u, byText[at]); fault != "" {
				faults = append(faults, fault)
			}
			delete(byText, at)
		}
	}
	for _, at := range sortedKeys(byText) {
		faults = append(faults, fmt.Sprintf("#%d is in the log and nobody said it: %q", byText[at][0].Seq, byText[at][0].Text))
	}
	for _, p := range presenters {
		if fault := auditPresenter(p, logs[p.room]); fault != "" {
			faults = append(faults, fault)
		}
	}
	return faults
}

// auditRoom checks what holds of a room's rows whatever was said: places with
// no gap, times that never run backwards, and lines only in the broadcast that
// was running.
func auditRoom(room string, log []event) (faults []string) {
	var latest time.Time
	var running string
	ids := map[string]bool{}
	for i, e := range log {
		wrong := func(format string, args ...any) {
			faults = append(faults, fmt.Sprintf("room %s #%d: ", room, e.Seq)+fmt.Sprintf(format, args...))
		}
		if e.Seq != int64(i+1) {
			wrong("stands in place %d", i+1)
			return faults
		}
		if e.Kind == "hidden" {
			continue
		}
		at, err := time.Parse("2006-01-02T15:04:05.000Z", e.At)
		if err != nil || at.Before(latest) {
			wrong("its time is %q after %s (%v)", e.At, latest, err)
		}
		latest = at
		if ids[e.ID] || e.ID == "" {
			wrong("its id %q is missing or stands there twice", e.ID)
		}
		ids[e.ID] = true
		switch {
		case e.Kind == "broadcast" && e.State == "started" && running == "":
			running = e.Broadcast
		case e.Kind == "broadcast" && e.State == "ended" && running == e.Broadcast && running != "":
			running = ""
		case e.Kind == "message" && running != "" && e.Broadcast == running:
		default:
			wrong("a %s %s of broadcast %q while %q runs", e.Kind, e.State, e.Broadcast, running)
		}
	}
	return faults
}

// auditUtterance checks a line against the rows that have its text.
func auditUtterance(u *utterance, rows []event) (fault string) {
	told := fmt.Sprintf("%s in room %s: %q (key %q, %d answers lost)", u.user, u.room, u.text, u.key, u.lost)
	for _, e := range rows {
		if e.User.ID != u.user || e.User.Role != "viewer" {
			return fmt.Sprintf("%s: #%d has it from %+v", told, e.Seq, e.User)
		}
	}
	switch r := u.receipt; {
	case r != nil && len(rows) != 1:
		return fmt.Sprintf("%s: answered 201 with #%d, and is in the log %d times, want once", told, r.Seq, len(rows))
	case r != nil && (r.Seq != rows[0].Seq || r.ID != rows[0].ID || r.At != rows[0].At || r.Text != rows[0].Text):
		return fmt.Sprintf("%s: answered 201 with %+v, and the log has %+v", told, *r, rows[0])
	case r != nil:
	case u.refused != "" && len(rows) > 0:
		return fmt.Sprintf("%s: refused with %s, and is in the log as #%d", told, u.refused, rows[0].Seq)
	case u.refused != "":
	case u.key != "":
		return fmt.Sprintf("%s: its sender never learned what became of it", told)
	case len(rows) > 1:
		return fmt.Sprintf("%s: sent once with no answer, and is in the log %d times, want at most once", told, len(rows))
	}
	return ""
}

// auditPresenter checks that a presenter was shown its room: every row, once,
// in order, as it is in the log.
func auditPresenter(p *presenter, log []event) (fault string) {
	for i, e := range p.seen {
		switch {
		case i >= len(log):
			return fmt.Sprintf("presenter %s was shown #%d, and the log ends at #%d", p.room, e.Seq, len(log))
		case e != log[i]:
			return fmt.Sprintf("presenter %s was shown %+v, and the log has %+v", p.room, e, log[i])
		}
	}
	if len(p.seen) != len(log) {
		return fmt.Sprintf("presenter %s was shown %d rows, and the log has %d", p.room, len(p.seen), len(log))
	}
	return ""
}

// TestAudit shows the oracle every kind of wrong and wants it noticed: an
// oracle that is always content would pass TestCrash whatever the program does.
func TestAudit(t *testing.T) {
	row := func(seq int64, kind, state, text string) event {
		e := event{Seq: seq, ID: fmt.Sprint("id", seq), At: "2026-11-22T10:00:00.000Z", Broadcast: "b", Kind: kind, State: state, Text: text}
		if kind == "message" {
			e.User = eventUser{ID: "s1", Role: "viewer"}
		}
		return e
	}
	type world struct {
		log  []event
		said []*utterance
		seen []event
	}
	good := func() world {
		log := []event{row(1, "broadcast", "started", ""), {Seq: 2, Kind: "hidden"}, row(3, "message", "", "one"), row(4, "message", "", "two")}
		said := func(text string) *utterance { return &utterance{room: "7", user: "s1", text: text, key: "k" + text} }
		one, two, three := said("one"), said("two"), said("three")
		one.receipt = &answer201{ID: "id3", Seq: 3, At: log[2].At, Text: "one"}
		two.key, two.lost = "", 1
		three.refused = "broadcast.ended"
		return world{log, []*utterance{one, two, three}, append([]event{}, log...)}
	}
	tests := map[string]func(w *world){
		"a row is missing":                 func(w *world) { w.log = w.log[:3]; w.log = append(w.log, row(5, "message", "", "two")) },
		"time runs backwards":              func(w *world) { w.log[3].At = "2026-11-22T09:59:59.999Z" },
		"an id stands there twice":         func(w *world) { w.log[3].ID = "id3" },
		"a line outside of a broadcast":    func(w *world) { w.log[3].Broadcast = "" },
		"a line after the broadcast ended": func(w *world) { w.log[1] = row(2, "broadcast", "ended", "") },
		"a 201 that is not in the log":     func(w *world) { w.log = w.log[:2]; w.seen = w.seen[:2] },
		"a 201 that is in the log twice":   func(w *world) { w.log[3].Text = "one" },
		"a 201 with another place":         func(w *world) { w.said[0].receipt.Seq = 4 },
		"a 201 with another text":          func(w *world) { w.said[0].receipt.Text = "on" },
		"a line of somebody else":          func(w *world) { w.log[2].User.ID = "s2" },
		"an unanswered line twice":         func(w *world) { w.log = append(w.log, row(5, "message", "", "two")) },
		"a refused line in the log":        func(w *world) { w.log = append(w.log, row(5, "message", "", "three")) },
		"a line whose outcome is unknown":  func(w *world) { w.said[2].refused = "" },
		"a line that nobody said":          func(w *world) { w.said = w.said[:1] },
		"a row that was not shown":         func(w *world) { w.seen = w.seen[:3] },
		"a row shown that is not there":    func(w *world) { w.seen = append(w.seen, row(5, "message", "", "five")) },
		"a row shown otherwise":            func(w *world) { w.seen[2].Text = "other" },
	}
	check := func(w world) []string {
		return audit(map[string][]event{"7": w.log}, []*sender{{said: w.said}}, []*presenter{{room: "7", seen: w.seen}})
	}
	if faults := check(good()); len(faults) > 0 {
		t.Errorf("nothing is wrong: got %q, want no faults", faults)
	}
	for name, spoil := range tests {
		w := good()
		w.log = append([]event{}, w.log...)
		spoil(&w)
		if faults := check(w); len(faults) == 0 {
			t.Errorf("%s: got no fault, want one", name)
		}
	}
}
