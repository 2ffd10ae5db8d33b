package moderate

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// jar is what a bucket is said to be, written down as plainly as possible:
// tokens that drip in, are taken out and put back, and never more than fit.
type jar struct {
	rate   Rate
	tokens float64
	at     time.Time
}

func (j *jar) drip(now time.Time) {
	j.tokens = min(float64(j.rate.Burst), j.tokens+float64(now.Sub(j.at))/float64(j.rate.Each))
	j.at = now
}

// rounding is what a float may be off by.
const rounding = 1e-6

// A bucket lets through what a jar of tokens would, whatever is taken and given
// back when.
func TestBucketIsAJarOfTokens(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, rate := range []Rate{Per(20, 30*time.Second), Per(200, time.Second), Per(1, time.Second), Per(7, time.Second), Per(1_000_000, 30*time.Second)} {
		start := time.Now()
		b := NewBuckets[string](rate, 1000)
		j := jar{rate: rate, tokens: float64(rate.Burst), at: start}
		out := 0 // taken and not given back
		for now := start; now.Before(start.Add(time.Duration(3000) * rate.Each)); {
			now = now.Add(time.Duration(random.Int64N(int64(2*rate.Each) + 1)))
			if random.IntN(50) == 0 {
				now = now.Add(time.Duration(random.Int64N(int64(rate.Each) * int64(rate.Burst) * 2)))
			}
			j.drip(now)
			for range random.IntN(4) {
				before := b.Level("u", now)
				if int(j.tokens+rounding) < before.Left || int(j.tokens-rounding) > before.Left {
					t.Fatalf("%+v: %d left, the jar has %f", rate, before.Left, j.tokens)
				}
				switch wait := b.Take("u", now); {
				case wait == 0 && j.tokens < 1-rounding:
					t.Fatalf("%+v: taken, and the jar has %f", rate, j.tokens)
				case wait == 0:
					j.tokens--
					out++
				case j.tokens > 1+rounding:
					t.Fatalf("%+v: refused, and the jar has %f", rate, j.tokens)
				case b.Take("u", now.Add(wait-1)) == 0:
					t.Fatalf("%+v: there is one before the time %s is over", rate, wait)
				case b.Level("u", now.Add(wait)).Left != 1 || before.Next != wait:
					t.Fatalf("%+v: after %s: %+v; announced %+v", rate, wait, b.Level("u", now.Add(wait)), before)
				}
				if out > 0 && random.IntN(6) == 0 {
					b.Return("u", now)
					out--
					j.tokens = min(float64(rate.Burst), j.tokens+1)
				}
			}
		}
	}
}

func TestFullBucketAnnouncesNothing(t *testing.T) {
	b, now := NewBuckets[string](Per(20, 30*time.Second), 1000), time.Now()
	if got, want := b.Level("u", now), (Level{Left: 20}); got != want {
		t.Errorf("a full one: got %+v, want %+v", got, want)
	}
	b.Take("u", now)
	if got, want := b.Level("u", now), (Level{19, 1500 * time.Millisecond}); got != want {
		t.Errorf("after one line: got %+v, want %+v", got, want)
	}
	if got, want := b.Level("u", now.Add(1500*time.Millisecond)), (Level{Left: 20}); got != want {
		t.Errorf("1.5 s later: got %+v, want %+v", got, want)
	}
}

func TestNoMoreIsTakenThanThereIs(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // there is no fake time here
	b, now := NewBuckets[string](Per(1000, time.Hour), 1000), time.Now()
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if b.Take("u", now) == 0 {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := taken.Load(); got != 1000 {
		t.Errorf("%d tokens of a bucket of 1000", got)
	}
}

func TestFullBucketsAreForgotten(t *testing.T) {
	b, start := NewBuckets[int](Per(1, time.Second), 1<<20), time.Now()
	for i := range 100_000 { // 1,000 new ones a second
		b.Take(i, start.Add(time.Duration(i)*time.Millisecond))
	}
	kept := 0
	for i := range b.shards {
		kept += len(b.shards[i].full)
	}
	if kept > 4*1000+shards*sweepFrom {
		t.Errorf("%d buckets are kept, and 1,000 are not full", kept)
	}
	if got := b.Held(start.Add(100 * time.Second)); got > 1000 {
		t.Errorf("%d are held, and at most 1,000 are not full", got)
	}
	if got := b.Held(start.Add(102 * time.Second)); got != 0 || b.Dropped() != 0 {
		t.Errorf("%d are held when all are full; %d were dropped", got, b.Dropped())
	}
}

// Past their bound the ones that were used least are forgotten.
func TestBucketsAreBounded(t *testing.T) {
	const most = 64 * 32
	b, now := NewBuckets[string](Per(100, time.Hour), most), time.Now()
	for range 100 {
		b.Take("flood", now)
	}
	for i := range 10 * most {
		b.Take(fmt.Sprint("u", i), now)
	}
	if got := b.Held(now); got > most {
		t.Errorf("%d buckets are held, want at most %d", got, most)
	}
	if b.Dropped() == 0 {
		t.Error("nothing says that buckets were dropped")
	}
	if b.Take("flood", now) == 0 {
		t.Error("an empty bucket was forgotten, where nearly full ones could have been")
	}
}

// A clock that is set back must not lock anybody out.
func TestTimeThatRunsBackwards(t *testing.T) {
	b, now := NewBuckets[string](Per(20, 30*time.Second), 1000), time.Now()
	b.Take("u", now.Add(time.Hour))
	if wait := b.Take("u", now.Add(time.Hour).Add(-time.Second)); wait != 0 {
		t.Errorf("a second earlier: refused for %s", wait)
	}
}

func TestTakingAllocatesNothing(t *testing.T) {
	b, now := NewBuckets[string](Per(1_000_000, time.Second), 1000), time.Now()
	if got := testing.AllocsPerRun(1000, func() { b.Take("u", now); b.Return("u", now) }); got != 0 {
		t.Errorf("%v allocations for a token, want none", got)
	}
}
