package moderate_test

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/moderate"
)

// verdict counts what a run has shown.
type verdict struct {
	codes          map[chat.Code]int
	lost, repeated int
}

func (v *verdict) add(o verdict) {
	for code, n := range o.codes {
		v.codes[code] += n
	}
	v.lost += o.lost
	v.repeated += o.repeated
}

// scope is whose key it is.
type scope struct{ room, user, key string }

func scopeOf(a *attempt) scope { return scope{a.room, a.user, a.key} }

// judge holds everything that was answered against what the log says in the end.
func (r *run) judge() verdict {
	v := verdict{codes: map[chat.Code]int{}}
	for _, a := range r.attempts {
		switch {
		case a.row != nil:
			v.codes[""]++
		case a.code != "":
			v.codes[a.code]++
		default:
			v.lost++
		}
	}
	lines := r.lines()
	r.judgeLog(lines)
	v.repeated = r.judgeKeys(lines)
	r.judgeRefusedLines(lines)
	for _, p := range r.processes() {
		r.judgeBuckets(p, "user", rates.User, chat.RateUser, func(a *attempt) string { return a.user })
		r.judgeBuckets(p, "room", rates.Room, chat.RateRoom, func(a *attempt) string { return a.room })
		r.judgeBuckets(p, "address", rates.Address, chat.RateRequests, func(a *attempt) string { return a.address })
	}
	return v
}

func (r *run) processes() (all []int) {
	for _, a := range r.attempts {
		all = append(all, a.process)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// lines are the messages of the log.
func (r *run) lines() (all []chat.Row) {
	for _, room := range []string{"7", "8", "9"} {
		rows, _ := r.disk.memory.After(context.Background(), room, 0, 1<<20) // it is in memory
		for i, row := range rows {
			if row.Seq != int64(i+1) {
				r.t.Errorf("room %s: row %d has seq %d", room, i+1, row.Seq)
			}
			if row.Kind == chat.KindMessage {
				all = append(all, row)
			}
		}
	}
	return all
}

// Every line of the log was sent, and logged once, whatever it had to be sent;
// every line that was answered with 201 is there.
func (r *run) judgeLog(lines []chat.Row) {
	sent, times := map[string]bool{}, map[string]int{}
	for _, a := range r.attempts {
		sent[a.room+"\x00"+a.user+"\x00"+a.text] = true
	}
	logged := map[string]chat.Row{}
	for _, row := range lines {
		logged[row.ID] = row
		if !sent[row.Room+"\x00"+row.User.ID+"\x00"+row.Text] {
			r.t.Errorf("nobody has said %+v", row)
		}
		if times[row.Room+row.Text]++; times[row.Room+row.Text] > 1 {
			r.t.Errorf("%q is in room %s %d times", row.Text, row.Room, times[row.Room+row.Text])
		}
	}
	for _, a := range r.attempts {
		if a.row == nil {
			continue
		}
		if got := logged[a.row.ID]; got.Seq != a.row.Seq || got.Text != a.text || got.User.ID != a.user || got.Room != a.room {
			r.t.Errorf("%+v was answered with %+v, and the log has %+v", *a, *a.row, got)
		}
	}
}

// A key has one line at most, and everybody who sends it is told of that one,
// or that it says something else, or to ask again.
func (r *run) judgeKeys(lines []chat.Row) (repeated int) {
	byKey := map[scope][]*attempt{}
	for _, a := range r.attempts {
		if a.key != "" {
			byKey[scopeOf(a)] = append(byKey[scopeOf(a)], a)
		}
	}
	for key, all := range byKey {
		var first *chat.Row
		for i := range lines {
			row := &lines[i]
			if row.Room == key.room && row.User.ID == key.user && strings.HasPrefix(row.Text+" ", key.user+" "+key.room+" "+key.key+" ") {
				if first != nil {
					r.t.Errorf("%v is in the log as #%d and as #%d", key, first.Seq, row.Seq)
				}
				first = row
			}
		}
		answers := 0
		for _, a := range all {
			switch {
			case a.row != nil && (first == nil || a.row.ID != first.ID):
				r.t.Errorf("%v: answered with %+v, logged is %+v", key, *a.row, first)
			case a.row != nil:
				answers++
			case a.code == chat.IdempotencyMismatch && (first == nil || first.Text == a.text):
				r.t.Errorf("%v: %q was a mismatch, logged is %+v", key, a.text, first)
			case a.code == chat.IdempotencyInFlight && !r.inFlight(a, all):
				r.t.Errorf("%v: in flight, and nothing was: %+v", key, *a)
			}
		}
		repeated += max(0, answers-1)
	}
	return repeated
}

// inFlight reports whether another request of that key was on its way, or left
// on its way by somebody who gave up.
func (r *run) inFlight(a *attempt, all []*attempt) bool {
	return slices.ContainsFunc(all, func(o *attempt) bool {
		return o != a && o.process == a.process && !o.start.After(a.end) && (!o.end.Before(a.start) || o.code == chat.LogOutcomeUnknown)
	})
}

// What was refused is not logged. And who was told that a key's line is surely
// not logged was told so in view of what was asked before at the same node.
func (r *run) judgeRefusedLines(lines []chat.Row) {
	for _, row := range lines {
		by := r.attemptOf(row)
		for _, a := range r.attempts {
			refused := a.code != "" && a.code != chat.LogOutcomeUnknown
			switch {
			case a == by && refused:
				r.t.Errorf("%+v was refused, and logged at %s", *a, r.disk.stored[row.ID])
			case a.key != "" && scopeOf(a) == scopeOf(by) && a.code == chat.LogUnavailable && a.process == by.process && by.end.Before(a.start):
				r.t.Errorf("%+v was told that it is not logged, and what was asked before, %+v, was logged at %s", *a, *by, r.disk.stored[row.ID])
			}
		}
	}
}

func (r *run) attemptOf(row chat.Row) *attempt {
	i := slices.IndexFunc(r.attempts, func(a *attempt) bool { return a.id == row.ID })
	return r.attempts[i] // every line has one, see judgeLog
}

// taken is a token that was taken, for certain or perhaps.
type taken struct {
	from, to time.Time // when it was taken; where it was given back, until then
	kept     bool      // its line is in the log
	maybe    bool      // nobody knows: it may have been kept
}

// judgeBuckets holds one kind of bucket, in one life of a node, against a jar
// of tokens of which nothing is known but when requests came and ended.
func (r *run) judgeBuckets(process int, what string, rate moderate.Rate, code chat.Code, keyOf func(*attempt) string) {
	byKey := map[string][]*attempt{}
	for _, a := range r.attempts {
		switch {
		case a.process != process:
		case a.user != a.room:
			byKey[keyOf(a)] = append(byKey[keyOf(a)], a)
		case a.code == code:
			r.t.Errorf("the presenter was refused: %+v", *a)
		}
	}
	for key, all := range byKey {
		tokens := r.tokens(all)
		r.judgeMost(what+" "+key, rate, tokens)
		for _, a := range all {
			if a.code == code && !couldBeEmpty(rate, tokens, a) {
				r.t.Errorf("%s %s: refused with %s although a token was there: %+v", what, key, code, *a)
			}
		}
	}
}

// tokens says of each attempt what it may have taken, and when. One that this
// bucket refused has taken none.
func (r *run) tokens(all []*attempt) (out []taken) {
	for _, a := range all {
		stored, kept := r.disk.stored[a.id]
		switch {
		case kept:
			out = append(out, taken{from: a.start, to: stored, kept: true})
		case a.code == chat.LogOutcomeUnknown || a.code == "" && a.row == nil:
			out = append(out, taken{from: a.start, to: a.end, maybe: true})
		case a.code == chat.LogUnavailable || a.row != nil:
			out = append(out, taken{from: a.start, to: a.end})
		}
	}
	return out
}

// judgeMost checks that in no stretch of time more lines went through than a
// full bucket, what came into it, and what was put back into it allow.
func (r *run) judgeMost(what string, rate moderate.Rate, tokens []taken) {
	for _, first := range tokens {
		a := first.from
		outside := 0 // taken before, and perhaps put back since
		var ends []time.Time
		for _, t := range tokens {
			switch {
			case t.kept && !t.from.Before(a):
				ends = append(ends, t.to)
			case !t.kept && t.from.Before(a) && (t.maybe || t.to.After(a)):
				outside++
			}
		}
		slices.SortFunc(ends, time.Time.Compare)
		for i, b := range ends {
			most := float64(rate.Burst+outside) + float64(b.Sub(a))/float64(rate.Each)
			if float64(i+1) > most+1e-6 {
				r.t.Errorf("%s: %d lines in %s, and a bucket of %d that gets one every %s lets %.2f through (%d put back)",
					what, i+1, b.Sub(a), rate.Burst, rate.Each, most, outside)
				return
			}
		}
	}
}

// couldBeEmpty reports whether, at some moment of an attempt, the bucket may
// have had no whole token.
func couldBeEmpty(rate moderate.Rate, tokens []taken, a *attempt) bool {
	moments := []time.Time{a.start, a.end}
	for _, t := range tokens {
		for _, m := range []time.Time{t.from, t.to} {
			if m.After(a.start) && m.Before(a.end) {
				moments = append(moments, m)
			}
		}
	}
	return slices.ContainsFunc(moments, func(m time.Time) bool { return fewest(rate, tokens, m) < 1+1e-6 })
}

// fewest is how few tokens there may have been at a moment. Each was taken as
// late as it can have been, so that the least has come in for it since; what
// was put back has hurt nobody.
func fewest(rate moderate.Rate, tokens []taken, m time.Time) float64 {
	var late []time.Time
	for _, t := range tokens {
		if t.from.After(m) || !t.kept && !t.maybe && t.to.Before(m) {
			continue
		}
		at := t.to
		if at.After(m) {
			at = m
		}
		late = append(late, at)
	}
	slices.SortFunc(late, time.Time.Compare)
	left, last := float64(rate.Burst), time.Time{}
	for _, at := range late {
		if !last.IsZero() {
			left = min(float64(rate.Burst), left+float64(at.Sub(last))/float64(rate.Each))
		}
		left, last = left-1, at
	}
	if last.IsZero() {
		return left
	}
	return min(float64(rate.Burst), left+float64(m.Sub(last))/float64(rate.Each))
}
