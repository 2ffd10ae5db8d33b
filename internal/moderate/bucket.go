// Package moderate decides what of a line is a matter of rules: so far, how
// many lines may be said. It knows the words of package chat and nothing else.
package moderate

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// Rate is a bucket: how many tokens it holds, and how long one takes to come back.
type Rate struct {
	Burst int
	Each  time.Duration
}

// Per is a bucket of n tokens that fills within a time.
func Per(n int, within time.Duration) Rate {
	return Rate{Burst: n, Each: max(within/time.Duration(n), 1)}
}

// Level is how full a bucket is.
type Level struct {
	Left int           // whole tokens
	Next time.Duration // until one more is there; 0: it is full
}

const (
	shards    = 64
	sweepFrom = 64 // buckets of a shard from which on full ones are looked for
)

// MaxBuckets bounds how many buckets that are not full are kept by default, at
// about 30 bytes each.
const MaxBuckets = 1 << 18

// Buckets are the buckets of one rate, one for each key. Methods may be called
// concurrently.
//
// A bucket is one number, the time at which it will be full again (the
// theoretical arrival time of the generic cell rate algorithm, ITU-T I.371), so
// whatever is full need not be kept. Keys are kept as their hashes of 64 bits:
// what a key weighs costs nothing and the collector has nothing to look at. The
// hash is seeded, so nobody can choose whose bucket to share, and of a million
// buckets two are the same with odds of one to 37 million. Weighed: x/time/rate,
// which costs an allocation for every token that may have to be given back.
type Buckets[K comparable] struct {
	each, depth int64 // ns; depth is the time that an empty bucket takes to fill
	most        int   // buckets of one shard
	epoch       time.Time
	seed        maphash.Seed
	dropped     atomic.Int64
	shards      [shards]shard
}

// shard is a part of the buckets under a lock of its own.
type shard struct {
	mu      sync.Mutex
	full    map[uint64]int64 // guarded by mu: when each bucket will be full, ns since the epoch
	sweepAt int              // guarded by mu: how many there must be before full ones are looked for again
	_       [40]byte         // two shards share no cache line
}

// NewBuckets makes buckets that are all full; most bounds how many others are
// kept. Past it the fuller ones are forgotten early, in favour of their owners.
func NewBuckets[K comparable](rate Rate, most int) *Buckets[K] {
	b := &Buckets[K]{each: int64(rate.Each), depth: int64(rate.Each) * int64(rate.Burst), most: max(most/shards, 1),
		epoch: time.Now(), seed: maphash.MakeSeed()}
	for i := range b.shards {
		b.shards[i].full, b.shards[i].sweepAt = map[uint64]int64{}, sweepFrom
	}
	return b
}

// Take takes a token, or says after how long there will be one.
func (b *Buckets[K]) Take(key K, now time.Time) (wait time.Duration) {
	h := b.lock(key, now)
	defer h.unlock()
	if wait = h.wait(); wait == 0 {
		h.take()
	}
	return wait
}

// Return puts a token back that was taken.
func (b *Buckets[K]) Return(key K, now time.Time) {
	h := b.lock(key, now)
	defer h.unlock()
	h.giveBack()
}

// Level looks into a bucket.
func (b *Buckets[K]) Level(key K, now time.Time) Level {
	h := b.lock(key, now)
	defer h.unlock()
	return h.level()
}

// Held counts the buckets that are not full, and forgets the others.
func (b *Buckets[K]) Held(now time.Time) (n int) {
	at := int64(now.Sub(b.epoch))
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		s.sweepLocked(at)
		n += len(s.full)
		s.mu.Unlock()
	}
	return n
}

// Dropped counts the buckets that were forgotten before they were full, because
// there were too many.
func (b *Buckets[K]) Dropped() int64 { return b.dropped.Load() }

// holding is one bucket with its shard locked. Its methods are called between
// lock and unlock.
type holding struct {
	shard       *shard
	hash        uint64
	each, depth int64
	most        int
	dropped     *atomic.Int64
	now, full   int64 // full is not before now
	held        bool  // the shard has it
}

// lock finds a key's bucket. The time is a difference to the epoch, and so that
// of the monotonic clock: an hour that is set back refuses nobody for an hour.
func (b *Buckets[K]) lock(key K, now time.Time) holding {
	hash := maphash.Comparable(b.seed, key)
	h := holding{shard: &b.shards[hash%shards], hash: hash, each: b.each, depth: b.depth, most: b.most, dropped: &b.dropped,
		now: int64(now.Sub(b.epoch))}
	h.shard.mu.Lock()
	if h.full, h.held = h.shard.full[hash]; !h.held || h.full < h.now {
		h.full = h.now
	}
	return h
}

func (h *holding) unlock() { h.shard.mu.Unlock() }

// wait is the time until there is a token.
func (h *holding) wait() time.Duration {
	return time.Duration(max(h.full+h.each-h.now-h.depth, 0))
}

func (h *holding) level() Level {
	missing := h.full - h.now // as time
	if missing == 0 {
		return Level{Left: int(h.depth / h.each)}
	}
	left := max(h.depth-missing, 0) / h.each
	return Level{Left: int(left), Next: time.Duration(missing - h.depth + (left+1)*h.each)}
}

func (h *holding) take() {
	h.full += h.each
	h.shard.storeLocked(h)
}

// giveBack puts a token back, into a bucket that has perhaps become full since.
func (h *holding) giveBack() {
	if h.full -= h.each; h.full > h.now {
		h.shard.storeLocked(h)
		return
	}
	delete(h.shard.full, h.hash)
}

// storeLocked keeps a bucket, at the cost of others where there are too many.
func (s *shard) storeLocked(h *holding) {
	if !h.held && len(s.full) >= min(s.sweepAt, h.most) {
		s.sweepLocked(h.now)
		if len(s.full) >= h.most {
			s.dropOneLocked()
			h.dropped.Add(1)
		}
	}
	s.full[h.hash] = h.full
}

// sweepLocked forgets the buckets that are full. The next time is when there are
// twice as many as now, so the work is spread evenly over what is stored.
func (s *shard) sweepLocked(now int64) {
	for hash, full := range s.full {
		if full <= now {
			delete(s.full, hash)
		}
	}
	if len(s.full) == 0 && s.sweepAt > sweepFrom {
		s.full = map[uint64]int64{} // a map never gives memory back
	}
	s.sweepAt = max(sweepFrom, 2*len(s.full))
}

// dropOneLocked forgets the fullest of a few buckets: the one whose owner gains
// least. The map's order is random.
func (s *shard) dropOneLocked() {
	var fullest uint64
	looked, least := 0, int64(0)
	for hash, full := range s.full {
		if looked == 0 || full < least {
			fullest, least = hash, full
		}
		if looked++; looked == 8 {
			break
		}
	}
	delete(s.full, fullest)
}
