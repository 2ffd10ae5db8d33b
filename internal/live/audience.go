package live

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// audience is the followers of one room on this node. They are told of its head
// together: at once when the last time is long enough ago, else at the end of a
// pause. So they stand at the same place, where one frame serves them all, and
// lines that come quickly share a write.
type audience struct {
	hub  *Hub
	size int // guarded by hub.mu

	mu   sync.Mutex // held for a moment only: nudges come in the path of a line
	head int64      // guarded by mu: the room's end, as far as known
	told time.Time  // guarded by mu: when the followers last were
	due  bool       // guarded by mu: tell will be called

	list      sync.Mutex // held while all are told
	followers map[*follower]struct{}
}

// maxPause bounds how long lines wait for others to be written with. It is what
// a reader of a chat does not notice.
const maxPause = 100 * time.Millisecond

// pause is how long a room's followers are left alone after they were told:
// PerDelivery for each follower of this node, so that one that has few tells them
// line by line, and one that has many writes at most 25,000 times a second in a
// busy room. On one core 200 lines a second to 1,000 followers then took half of
// it, 351,000 rows per CPU-second with their readers; with no pause it fell
// behind at 34 lines a second, 86,000 rows (BenchmarkFollowers). A pause for each
// follower on its own was dropped: they come to stand at different places, and
// each needs frames of its own.
func (h *Hub) pause() time.Duration {
	return min(time.Duration(h.following.Load())*h.opts.PerDelivery, maxPause)
}

// nudge has the followers told. It never blocks.
func (a *audience) nudge(head int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.head = max(a.head, head)
	if !a.due {
		a.due = true
		time.AfterFunc(max(0, time.Until(a.told.Add(a.hub.pause()))), a.tell)
	}
}

func (a *audience) tell() {
	a.mu.Lock()
	head := a.head
	a.due, a.told = false, time.Now()
	a.mu.Unlock()
	a.list.Lock()
	defer a.list.Unlock()
	for f := range a.followers {
		f.advance(head)
	}
}

func (a *audience) all() []*follower {
	a.list.Lock()
	defer a.list.Unlock()
	return slices.Collect(maps.Keys(a.followers))
}

// gather puts a follower into its room's audience.
func (h *Hub) gather(f *follower) {
	h.mu.Lock()
	a := h.audiences[f.room]
	if a == nil {
		a = &audience{hub: h, followers: map[*follower]struct{}{}}
		h.audiences[f.room] = a
	}
	a.size++
	h.mu.Unlock()
	a.list.Lock()
	defer a.list.Unlock()
	a.followers[f] = struct{}{}
}

// scatter takes a follower out of it, once.
func (h *Hub) scatter(f *follower) {
	h.mu.Lock()
	a := h.audiences[f.room]
	h.mu.Unlock()
	if a == nil || !a.remove(f) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.size--; a.size == 0 {
		delete(h.audiences, f.room)
	}
}

func (a *audience) remove(f *follower) bool {
	a.list.Lock()
	defer a.list.Unlock()
	_, in := a.followers[f]
	delete(a.followers, f)
	return in
}
