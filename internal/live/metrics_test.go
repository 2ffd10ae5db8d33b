package live

import (
	"fmt"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/wire"
)

// figure is the value of a node's gauge or counter, or the count of its histogram, with one label, or with none
// where label is "". What is not there is -1.
func (n *node) figure(name, label string) float64 {
	families, err := n.metrics.Gather()
	if err != nil {
		n.rig.t.Fatalf("gather the metrics: %v", err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if labels := m.GetLabel(); label == "" || len(labels) == 1 && labels[0].GetValue() == label {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}

func (r *rig) wantFigure(when, name, label string, want int64) {
	r.t.Helper()
	if got := r.nodes[0].figure(name, label); got != float64(want) {
		r.t.Errorf("%s: %s %s is %v, want %d", when, name, label, got, want)
	}
}

// wantCloses fails unless the first node counted so many links that ended for a
// reason.
func (r *rig) wantCloses(reason string, want int64) {
	r.t.Helper()
	r.wantFigure("links closed", "hanmadi_link_closes_total", reason, want)
}

func TestEveryReasonIsCountedOnce(t *testing.T) {
	inBubble(t, setup{hub: func(o *Options) { o.MaxLinks = 7 }}, func(t *testing.T, r *rig) {
		for reason := range endReasons {
			r.wantCloses(reason, 0)
		}
		r.connect(dialing{user: "gone"}).drop()
		r.connect(dialing{user: "forged", token: "forged"})
		r.connect(dialing{user: "protocol"}).send(wire.Start{})
		r.connect(dialing{user: "expired", token: "7 0"})
		r.connect(dialing{user: "silent", silent: true})
		r.connect(dialing{user: "replaced"})
		r.connect(dialing{user: "replaced"})
		r.connect(dialing{user: "ended"})
		r.endBroadcast("ended")
		stuck := r.connect(dialing{user: "stuck", silent: true})
		stuck.deafen()
		r.grow("stuck", 300)
		r.nodes[0].hub.Nudge("stuck", r.head("stuck"))
		for i := range 4 {
			r.connect(dialing{user: fmt.Sprint("many", i)})
		}
		r.pass(80 * time.Second)
		<-r.drain(time.Minute, 0)
		for reason, want := range endReasons {
			r.wantCloses(reason, want)
		}
	})
}

// endReasons says how many links of the test above end for each reason. "many"
// has four where room is for three.
var endReasons = map[string]int64{"gone": 1, "bad_token": 1, "protocol": 1, "token_expired": 1, "silent": 1, "replaced": 1,
	"broadcast_ended": 1, "too_slow": 1, "too_many": 1, "draining": 4, "internal": 0, "forbidden": 0}

func TestTheLagOfAStuckLinkIsSeen(t *testing.T) {
	const rows, seconds, unrelayed = "hanmadi_session_lag_rows", "hanmadi_session_lag_seconds", "hanmadi_session_unrelayed_rows"
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		other := r.connect(dialing{user: "8"})
		c.send(wire.Relayed{Seq: 1})
		other.send(wire.Relayed{Seq: 2})
		r.pass(0)
		r.wantFigure("level", "hanmadi_links", "", 2)
		r.wantFigure("level", rows, "all", 0)
		r.wantFigure("level", rows, "worst", 0)
		r.wantFigure("level", seconds, "", 0)
		r.wantFigure("level", unrelayed, "all", 1)
		r.wantFigure("level", unrelayed, "worst", 1)

		c.deafen()
		r.grow("7", 900)
		r.nodes[0].hub.Nudge("7", 902)
		r.pass(30 * time.Second)
		sent := c.cursor()
		lag := 902 - sent
		r.wantFigure("stuck", rows, "all", lag)
		r.wantFigure("stuck", rows, "worst", lag)
		r.wantFigure("stuck", seconds, "", 30)
		r.wantFigure("stuck", unrelayed, "all", sent-1)
		r.wantFigure("stuck", unrelayed, "worst", sent-1)

		r.say("8", "한 줄 더") // the other link's page has not acknowledged it
		c.listen()
		r.pass(0)
		r.wantFigure("read again", rows, "all", 0)
		r.wantFigure("read again", rows, "worst", 0)
		r.wantFigure("read again", seconds, "", 0)
		r.wantFigure("read again", unrelayed, "all", 901+1)
		r.wantFigure("read again", unrelayed, "worst", 901)
		r.wantFigure("read again", "hanmadi_link_rows_total", "", 902+3)
	})
}

func TestTheLagIsSeenWhileTheLogCannotBeRead(t *testing.T) {
	log := &flaky{Log: newTall()}
	inBubble(t, setup{log: log}, func(t *testing.T, r *rig) {
		c := r.connect(dialing{})
		r.fill("7", 5)
		log.down.Store(true)
		r.nodes[0].hub.Nudge("7", 7)
		r.pass(30 * time.Second)
		s := r.nodes[0].hub.rooms["7"]
		if rows, since := s.lag(); rows != 5 || since != 30*time.Second {
			t.Errorf("got a lag of %d rows for %v, want 5 for 30s", rows, since)
		}
		log.down.Store(false)
		r.pass(10 * time.Second)
		c.wantRun("the log is back", 1, 7)
		if rows, since := s.lag(); rows != 0 || since != 0 {
			t.Errorf("level again: got a lag of %d rows for %v, want none", rows, since)
		}
	})
}

// TestAPageMayAcknowledgeBeforeTheServerHasNoted: the answer to a frame can be
// here before the goroutine that wrote the frame has moved the cursor.
func TestAPageMayAcknowledgeBeforeTheServerHasNoted(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, r *rig) {
		r.connect(dialing{})
		s := r.nodes[0].hub.rooms["7"]
		if end := s.speaks.hear(s, wire.Encode(wire.Relayed{Seq: 3})); end != nil {
			t.Fatalf("relayed ended the link: %v", end)
		}
		if unrelayed := s.unrelayed(); unrelayed != 0 {
			t.Errorf("acknowledged ahead: got %d rows not relayed, want 0", unrelayed)
		}
		r.say("7", "그 줄")
		r.pass(0)
		if unrelayed := s.unrelayed(); unrelayed != 0 {
			t.Errorf("then sent: got %d rows not relayed, want 0", unrelayed)
		}
	})
}
