package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxBatch bounds the rows of one append; MongoDB's ordered inserts are kept
// at this size too.
const maxBatch = 100

// Judge decides, against the room's state at the position its rows would
// follow, what to log: rows, nothing, or an error. It may be called again when
// somebody else's row came first, so it has no effects of its own.
type Judge func(State) ([]Row, error)

// Do runs a judge in the room's order and appends what it returns. Rows come
// back as stored. Where after is not nil it receives the state that includes
// them. Errors are the judge's own, *DuplicateError, or a *Refusal.
func (d *Desk) Do(ctx context.Context, room string, judge Judge, after *State) ([]Row, error) {
	r := d.rooms.acquire(room, d.opts.MaxRooms)
	defer d.rooms.release(r)
	req := d.request(judge)
	rows, err := d.await(ctx, r, req)
	if err == nil && after != nil {
		*after = req.after
	}
	return rows, err
}

// State is the room as this node knows it.
func (d *Desk) State(ctx context.Context, room string) (State, error) {
	r := d.rooms.acquire(room, d.opts.MaxRooms)
	defer d.rooms.release(r)
	if st := r.state.Load(); st != nil {
		return *st, nil
	}
	req := d.request(func(State) ([]Row, error) { return nil, nil })
	if _, err := d.await(ctx, r, req); err != nil {
		return State{}, err
	}
	return req.after, nil
}

// RoomOf names the room whose running broadcast has an id, as far as this node
// knows: rooms that are live are looked at by it now and then.
func (d *Desk) RoomOf(broadcast string) (room string, known bool) {
	d.rooms.mu.Lock()
	defer d.rooms.mu.Unlock()
	room, known = d.rooms.onAir[broadcast]
	return room, known
}

// Rooms is how many rooms' states are in memory.
func (d *Desk) Rooms() int {
	d.rooms.mu.Lock()
	defer d.rooms.mu.Unlock()
	return len(d.rooms.byName)
}

// Close waits for what is being judged. Requests made after it may be refused.
func (d *Desk) Close() { d.rooms.working.Wait() }

// room serialises one room. Rooms in use are never dropped; the others can be,
// because everything in here is read back from the log.
type room struct {
	name  string
	users int // guarded by rooms.mu
	state atomic.Pointer[State]

	mu      sync.Mutex
	queue   []*request          // guarded by mu
	working bool                // guarded by mu
	claimed map[string]struct{} // guarded by mu: idems of requests being answered
	unsure  map[string]struct{} // guarded by mu: idems of keys whose line may still come to be logged
}

type rooms struct {
	working sync.WaitGroup

	mu     sync.Mutex
	byName map[string]*room  // guarded by mu
	onAir  map[string]string // guarded by mu: rooms by the ids of their running broadcasts
}

// know keeps a room's state, and finds it by its broadcast from now on.
func (rs *rooms) know(r *room, st *State) {
	var before string
	if old := r.state.Swap(st); old != nil {
		before = old.Broadcast.ID
	}
	if before == st.Broadcast.ID {
		return
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.onAir[before] == r.name {
		delete(rs.onAir, before)
	}
	if st.Live() {
		rs.onAir[st.Broadcast.ID] = r.name
	}
}

// doubt forgets a room's state, which is read from the log when it is needed.
func (rs *rooms) doubt(r *room) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.doubtLocked(r)
}

func (rs *rooms) doubtLocked(r *room) {
	if st := r.state.Swap(nil); st != nil && rs.onAir[st.Broadcast.ID] == r.name {
		delete(rs.onAir, st.Broadcast.ID)
	}
}

func (rs *rooms) acquire(name string, keep int) *room {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.byName[name]
	if r == nil {
		if len(rs.byName) >= keep {
			rs.dropOneLocked()
		}
		r = &room{name: name}
		rs.byName[name] = r
	}
	r.users++
	return r
}

// dropOneLocked forgets some room that nobody uses. Looking at a few is enough:
// the map's order is random and most rooms are idle at any moment.
func (rs *rooms) dropOneLocked() {
	looked := 0
	var spare *room
	for _, r := range rs.byName {
		if r.users == 0 && r.idle() {
			if spare = r; !r.live() { // those on air are found by their broadcasts, see RoomOf
				break
			}
		}
		if looked++; looked == 64 {
			break
		}
	}
	if spare != nil {
		delete(rs.byName, spare.name)
		rs.doubtLocked(spare)
	}
}

func (r *room) live() bool {
	st := r.state.Load()
	return st != nil && st.Live()
}

func (rs *rooms) release(r *room) {
	rs.mu.Lock()
	r.users--
	rs.mu.Unlock()
}

// idle reports that nothing of the room is under way. Whoever gave up waiting
// has left, but the append goes on, and there is one at a time.
func (r *room) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.working && len(r.unsure) == 0
}

func (r *room) claim(idem string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.claimed[idem]; taken {
		return false
	}
	if r.claimed == nil {
		r.claimed = map[string]struct{}{} // most rooms never need one
	}
	r.claimed[idem] = struct{}{}
	return true
}

func (r *room) unclaim(idem string) {
	r.mu.Lock()
	delete(r.claimed, idem)
	r.mu.Unlock()
}

// request is one judge waiting for its turn.
type request struct {
	// Set once, before it is queued.
	judge Judge
	line  *Draft // that the judge logs, for what it costs and its key; nil: none
	idem  string // of the line
	done  chan struct{}
	// Owned by the asker.
	handed bool // the worker has it, or will, and concludes it
	// Written by the worker, read by the asker once done is closed.
	rows  []Row
	after State
	err   error
	paid  bool // the limits have taken what the line costs
}

func (d *Desk) request(judge Judge) *request {
	return &request{judge: judge, done: make(chan struct{})}
}

// await queues a request and waits for its end. A request that is given up
// while it waits was surely not logged; once taken, only the log can say.
func (d *Desk) await(ctx context.Context, r *room, req *request) ([]Row, error) {
	if !d.enqueue(r, req) {
		return nil, &Refusal{Code: Overloaded, RetryAfter: time.Second}
	}
	req.handed = true
	deadline := time.NewTimer(d.opts.Deadline) // a context of its own would cost twice as much
	defer deadline.Stop()
	why := context.DeadlineExceeded
	select {
	case <-req.done:
		return req.rows, req.err
	case <-deadline.C:
	case <-ctx.Done():
		why = ctx.Err()
	}
	if r.withdraw(req) {
		req.handed = false
		return nil, refuseLog(fmt.Errorf("%w: gave up waiting for a turn: %w", ErrLogUnavailable, why))
	}
	select {
	case <-req.done: // it ended while we gave up
		return req.rows, req.err
	default:
		return nil, refuseLog(fmt.Errorf("%w: gave up waiting for the append: %w", ErrOutcomeUnknown, why))
	}
}

// enqueue starts the room's worker where none runs; a worker lives only while
// there is something to judge.
func (d *Desk) enqueue(r *room, req *request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) >= d.opts.MaxQueued {
		return false
	}
	r.queue = append(r.queue, req)
	if !r.working {
		r.working = true
		d.rooms.working.Add(1)
		go d.work(r)
	}
	return true
}

func (r *room) withdraw(req *request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.queue, req); i >= 0 {
		r.queue = slices.Delete(r.queue, i, i+1)
		return true
	}
	return false
}

func (r *room) take() []*request {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		r.working, r.queue = false, nil
		return nil
	}
	n := min(len(r.queue), maxBatch)
	batch := slices.Clone(r.queue[:n])
	r.queue = slices.Delete(r.queue, 0, n)
	return batch
}

func (d *Desk) work(r *room) {
	defer d.rooms.working.Done()
	for batch := r.take(); batch != nil; batch = r.take() {
		d.settle(r, batch)
		for _, req := range batch {
			d.conclude(r, req)
			close(req.done)
		}
	}
}

// conclude lets a line's key go and gives back what the line has cost, unless
// it was logged or may have been. It is the worker that does so, as the asker
// may have given up long before the outcome is known.
func (d *Desk) conclude(r *room, req *request) {
	if req.line == nil {
		return
	}
	if req.paid && req.err != nil && !isUnknown(req.err) {
		d.opts.Limits.Return(req.line, d.opts.Now())
	}
	if req.line.Key != "" {
		if isUnknown(req.err) {
			r.doubt(req.idem, d.opts.MaxQueued)
		}
		r.unclaim(req.idem)
	}
}

// doubt remembers a key whose line may still come to be logged: an append that
// was given up may end well long after.
func (r *room) doubt(idem string, most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unsure == nil {
		r.unsure = map[string]struct{}{}
	}
	if len(r.unsure) < most {
		r.unsure[idem] = struct{}{}
	}
}

// settleDoubts is called when an append has gone well: whatever was under way
// before it is in the log by now, or has come too late for its place.
func (r *room) settleDoubts() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.unsure)
}

// inDoubt says of a line with a key that was not logged this time that it may
// be all the same.
func (r *room) inDoubt(idem string, err error) error {
	var ref *Refusal
	if !errors.As(err, &ref) || ref.Code == IdempotencyMismatch { // that one is in the log
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, unsure := r.unsure[idem]; unsure {
		return refuseUnknown(err)
	}
	return err
}

// unclaimOwn lets the key of a line go that no worker has.
func (d *Desk) unclaimOwn(r *room, req *request) {
	if !req.handed {
		r.unclaim(req.idem)
	}
}

// settle judges a batch and logs it, again and again as long as others' rows
// come first. No answer leaves before the rows it may depend on are durable.
func (d *Desk) settle(r *room, batch []*request) {
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.Deadline)
	defer cancel()
	for {
		st, err := d.load(ctx, r)
		if err != nil {
			fail(batch, err)
			return
		}
		rows := d.judgeAll(st, batch)
		if len(rows) == 0 {
			return
		}
		stored, err := d.log.Append(ctx, r.name, st.Seq, rows)
		var behind *BehindError
		var dup *DuplicateError
		switch {
		case err == nil:
			d.settled(r, st, batch, stored)
			return
		case errors.As(err, &behind):
			d.catchUp(r, st, behind.Rows)
		case errors.As(err, &dup) && refuse(batch, dup):
		default:
			d.rooms.doubt(r)
			fail(batch, err)
			return
		}
	}
}

// load gives the room's state, folding it from the log when it is not known.
func (d *Desk) load(ctx context.Context, r *room) (State, error) {
	if st := r.state.Load(); st != nil {
		return *st, nil
	}
	marks, last, err := d.log.Marks(ctx, r.name, 0)
	if err != nil {
		return State{}, err
	}
	st := State{Room: r.name}
	for _, m := range marks {
		st = st.Apply(m)
	}
	st.Seq, st.At = last.Seq, last.At
	d.rooms.know(r, &st)
	if st.Live() { // its row may be of an append whose outcome nobody learnt
		d.opts.OnStarted(r.name)
	}
	return st, nil
}

// judgeAll judges each request against what the ones before it would leave.
func (d *Desk) judgeAll(st State, batch []*request) []Row {
	var rows []Row
	now := d.opts.Now()
	for _, req := range batch {
		if req.settledBefore() {
			continue
		}
		if req.rows, req.err = req.judge(st); req.err == nil {
			req.err = d.charge(req, now)
		}
		if req.err != nil {
			req.rows = nil
		}
		for i := range req.rows {
			req.rows[i].Seq = st.Seq + 1
			st = st.Apply(req.rows[i])
		}
		req.after = st
		rows = append(rows, req.rows...)
	}
	return rows
}

// charge takes what a line costs: last of all, so that one which is refused for
// another reason costs nothing, and once, however often it is judged.
func (d *Desk) charge(req *request, now time.Time) error {
	if req.line == nil || req.paid || d.opts.Limits == nil {
		return nil
	}
	err := d.opts.Limits.Take(req.line, now)
	req.paid = err == nil
	return err
}

// settledBefore reports that the log has answered this request already, in an
// earlier round of its batch.
func (req *request) settledBefore() bool {
	var dup *DuplicateError
	return errors.As(req.err, &dup)
}

// settled folds what was stored, hands each request its rows, and lets the
// sessions know.
func (d *Desk) settled(r *room, st State, batch []*request, stored []Row) {
	before := st
	for _, req := range batch {
		n := len(req.rows)
		req.rows, stored = stored[:n:n], stored[n:]
		for _, row := range req.rows {
			st = st.Apply(row)
		}
		if n > 0 {
			req.after = st
		}
	}
	started := st.Live() && (before.Broadcast.Seq != st.Broadcast.Seq)
	r.settleDoubts()
	d.rooms.know(r, &st)
	d.presence.Nudge(r.name, st.Seq)
	if started {
		d.opts.OnStarted(r.name)
	}
}

// catchUp folds rows that others logged; where they do not follow directly the
// state is read anew.
func (d *Desk) catchUp(r *room, st State, rows []Row) {
	if len(rows) == 0 {
		d.rooms.doubt(r)
		return
	}
	for _, row := range rows {
		if row.Seq != st.Seq+1 {
			d.rooms.doubt(r)
			return
		}
		st = st.Apply(row)
	}
	d.rooms.know(r, &st)
}

// refuse answers the one request of the batch that was logged before, and
// reports whether there is such a one.
func refuse(batch []*request, dup *DuplicateError) bool {
	for _, req := range batch {
		for _, row := range req.rows {
			if row.Idem == dup.Row.Idem {
				req.rows, req.err = nil, dup
				return true
			}
		}
	}
	return false
}

func fail(batch []*request, err error) {
	for _, req := range batch {
		if !req.settledBefore() {
			req.rows, req.err = nil, refuseLog(err)
		}
	}
}
