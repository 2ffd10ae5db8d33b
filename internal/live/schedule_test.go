package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// device is one page of a presenter: it comes and goes, on any node, and takes
// its cursor along. The client that stands for its present link checks that the
// rows follow on those that it has.
type device struct {
	room  string
	link  *client // nil before the first
	first int64   // the first seq that earlier links gave it; 0: none
	count int64   // seqs that earlier links gave it
}

// given is the first seq that the device has, and how many it was given.
func (d *device) given() (first, count int64) {
	if d.link == nil {
		return 0, 0
	}
	seqs := d.link.seqs()
	first = d.first
	if first == 0 && len(seqs) > 0 {
		first = seqs[0]
	}
	return first, d.count + int64(len(seqs))
}

// watcher is a viewer who comes and goes like that.
type watcher struct {
	room  string
	at    *viewer // nil before the first
	first int64   // the first seq that earlier streams gave it; 0: none
	count int64   // seqs that earlier streams gave it
}

func (w *watcher) given() (first, count int64) {
	if w.at == nil {
		return 0, 0
	}
	seqs := w.at.seqs()
	first = w.first
	if first == 0 && len(seqs) > 0 {
		first = seqs[0]
	}
	return first, w.count + int64(len(seqs))
}

// schedule is a run of things that happen to three presenters with two devices
// and a viewer each, on two nodes that share a log. The
// same seed gives the same schedule.
type schedule struct {
	*rig
	log      *flaky
	rng      *rand.Rand
	devices  []*device
	watchers []*watcher
	lost     float64 // the share of nudges that are lost
	said     int
}

func newSchedule(r *rig, log *flaky, seed uint64) *schedule {
	s := &schedule{rig: r, log: log, rng: rand.New(rand.NewPCG(seed, 7))}
	for i := range 6 {
		s.devices = append(s.devices, &device{room: fmt.Sprint("p", i/2)})
	}
	for i := range 3 {
		s.watchers = append(s.watchers, &watcher{room: fmt.Sprint("p", i)})
	}
	lottery := rand.New(rand.NewPCG(seed, 8)) // asked under the presence's lock only
	r.presence.lose(func() bool { return lottery.Float64() < s.lost })
	return s
}

// step lets one thing happen.
func (s *schedule) step() {
	d := s.devices[s.rng.IntN(len(s.devices))]
	w := s.watchers[s.rng.IntN(len(s.watchers))]
	switch s.rng.IntN(16) {
	case 12, 13:
		s.watch(w)
	case 14:
		if w.at != nil {
			w.at.drop()
		}
	case 15:
		s.lookOrNot(w)
	case 0, 1, 2:
		s.connect(d)
	case 3, 4, 5:
		s.post(fmt.Sprint("p", s.rng.IntN(3)), 1+s.rng.IntN(40))
	case 6:
		if d.link != nil {
			d.link.drop()
		}
	case 7:
		if d.link != nil {
			d.link.hush(s.rng.IntN(2) == 0)
		}
	case 8:
		s.readOrNot(d)
	case 9:
		s.lost = []float64{0, 0.5, 1}[s.rng.IntN(3)]
	case 10:
		s.log.down.Store(s.rng.IntN(3) == 0)
	default:
		time.Sleep(time.Duration(s.rng.IntN(20_000)) * time.Millisecond)
	}
	synctest.Wait()
}

func (s *schedule) readOrNot(d *device) {
	switch {
	case d.link == nil:
	case s.rng.IntN(2) == 0:
		d.link.deafen()
	default:
		d.link.listen()
	}
}

// connect opens a new link of a device; its old one, if it is open, goes as a
// network does.
func (s *schedule) connect(d *device) {
	if d.link != nil {
		d.link.drop()
		synctest.Wait()
	}
	d.first, d.count = d.given()
	// The new link goes on from the old one's cursor, even when it was given nothing.
	d.link = s.dial(dialing{user: d.room, node: s.rng.IntN(len(s.nodes)), frame: s.rng.IntN(2) == 0, from: d.link})
}

// watch has a viewer follow anew, if the node can serve them now.
func (s *schedule) watch(w *watcher) {
	if w.at != nil {
		w.at.drop()
		synctest.Wait()
	}
	d := following{room: w.room, node: s.rng.IntN(len(s.nodes)), from: w.at}
	next := s.follow(d)
	if next.status != 200 {
		if next.code != chat.LogUnavailable {
			s.t.Errorf("a viewer of %s was refused: %d %s", w.room, next.status, next.code)
		}
		return
	}
	w.first, w.count = w.given()
	w.at = next
}

func (s *schedule) lookOrNot(w *watcher) {
	switch {
	case w.at == nil:
	case s.rng.IntN(2) == 0:
		w.at.deafen()
	default:
		w.at.listen()
	}
}

// post says lines at some node, as fast as it goes. That a room is not live, or
// nobody there to hear, is an answer like any other.
func (s *schedule) post(room string, lines int) {
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	for range lines {
		s.said++
		_, err := n.desk.Send(context.Background(), chat.Draft{Room: room, User: chat.User{ID: "42", Nickname: "하늘"}, Text: fmt.Sprint("줄 ", s.said)})
		var ref *chat.Refusal
		if err != nil && (!errors.As(err, &ref) || ref.Code != chat.BroadcastEndedCode && ref.Code != chat.PresenterGone && ref.Code != chat.LogUnavailable) {
			s.t.Errorf("say a line in %s: %v", room, err)
		}
	}
}

// heal makes everything well again and looks at every device in turn.
func (s *schedule) heal() {
	s.lost = 0
	s.log.down.Store(false)
	s.pass(2 * time.Minute) // attempts to link are to be had again
	for i, d := range s.devices {
		s.connect(d)
		s.pass(15 * time.Second)
		what := fmt.Sprintf("device %d of room %s", i, d.room)
		d.link.wantOpen(what)
		head := s.head(d.room)
		if got := d.link.cursor(); got != head {
			s.t.Errorf("%s has rows up to %d, want %d", what, got, head)
		}
		if got := s.linked(d.room); got != 1 {
			s.t.Errorf("%s: the room has %d links, want 1", what, got)
		}
		if first, count := d.given(); count != head-first+1 {
			s.t.Errorf("%s was given %d seqs from %d on, want %d", what, count, first, head-first+1)
		}
	}
	for i, w := range s.watchers {
		s.watch(w)
		s.pass(15 * time.Second)
		what := fmt.Sprintf("viewer %d of room %s", i, w.room)
		w.at.wantOpen(what)
		head := s.head(w.room)
		if got := w.at.id(); got != head {
			s.t.Errorf("%s has rows up to %d, want %d", what, got, head)
		}
		if first, count := w.given(); count > 0 && count != head-first+1 {
			s.t.Errorf("%s was given %d seqs from %d on, want %d", what, count, first, head-first+1)
		}
	}
}

// TestEveryPageSeesEverySeqOnceInOrder is the promise of the links under
// whatever happens. The order and the gaps are checked with each frame.
func TestEveryPageSeesEverySeqOnceInOrder(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			log := &flaky{Log: newTall()}
			inBubble(t, setup{nodes: 2, log: log}, func(t *testing.T, r *rig) {
				s := newSchedule(r, log, uint64(seed))
				for range 180 {
					s.step()
				}
				s.heal()
				var seen int64
				for _, w := range s.watchers {
					_, count := w.given()
					seen += count
				}
				if seen < 50 {
					t.Errorf("all viewers together were given only %d rows", seen)
				}
				if rows := r.head("p0") + r.head("p1") + r.head("p2"); rows < 100 {
					t.Errorf("the schedule made only %d rows", rows)
				}
			})
		})
	}
}
