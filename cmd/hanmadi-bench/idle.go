package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

type idleCmd struct {
	bench
	From    int `default:"1000" help:"Links at first."`
	To      int `default:"10000" help:"Links in the end."`
	Periods int `default:"3" help:"Heartbeat periods to wait before each reading."`
}

// heartbeat is the server's period.
const heartbeat = 25 * time.Second

// Run measures idle links.
func (c *idleCmd) Run(ctx context.Context) error {
	done, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer done()
	return c.measure(ctx)
}

func (c *idleCmd) measure(ctx context.Context) error {
	s, err := c.startHanmadi(ctx, "idle")
	if err != nil {
		return err
	}
	defer s.stop()
	var all []*presenter
	defer func() {
		for _, p := range all {
			p.conn.Drop()
		}
	}()
	var memory [2]int64
	var cpu time.Duration
	for i, n := range []int{c.From, c.To} {
		note("%d idle links, for %d heartbeats", n, c.Periods)
		if all, err = s.linkUp(ctx, all, n); err != nil {
			return err
		}
		if cpu, memory[i], err = c.rest(ctx, s); err != nil {
			return err
		}
		if err := alive(s, all); err != nil {
			return err
		}
	}
	waited := time.Duration(c.Periods) * heartbeat
	fmt.Printf("\nIdle links, read after %d heartbeats, all alive\n", c.Periods)
	fmt.Printf("  resident memory with %d: %.0f MiB, with %d: %.0f MiB; each link more %.1f KiB\n", c.From, float64(memory[0])/(1<<20),
		c.To, float64(memory[1])/(1<<20), float64(memory[1]-memory[0])/float64(c.To-c.From)/1024)
	fmt.Printf("  CPU with %d: %.1f %% of a core\n", c.To, 100*cpu.Seconds()/waited.Seconds())
	return nil
}

// linkUp opens links until there are n, 64 at a time.
func (s *server) linkUp(ctx context.Context, have []*presenter, n int) ([]*presenter, error) {
	type opened struct {
		p   *presenter
		err error
	}
	results := make(chan opened)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	first, want := len(have), n-len(have)
	go func() {
		for i := range want {
			slots <- struct{}{}
			wg.Go(func() {
				p, err := s.present(ctx, fmt.Sprint("idle", first+i), nil)
				<-slots
				results <- opened{p, err}
			})
		}
	}()
	var failure error
	for range want {
		o := <-results
		if o.err != nil {
			failure = o.err
			continue
		}
		have = append(have, o.p)
		go o.p.run()
	}
	wg.Wait()
	return have, failure
}

// rest waits for the periods and reads what they cost, and the memory after.
func (c *idleCmd) rest(ctx context.Context, s *server) (cpu time.Duration, memory int64, err error) {
	before, err := s.cpu()
	if err != nil {
		return 0, 0, err
	}
	select {
	case <-time.After(time.Duration(c.Periods) * heartbeat):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	after, err := s.cpu()
	if err != nil {
		return 0, 0, err
	}
	memory, err = s.resident()
	return after - before, memory, err
}

// alive checks both ends of every link.
func alive(s *server, all []*presenter) error {
	for _, p := range all {
		if err := p.err.Load(); err != nil {
			return fmt.Errorf("the link of %s ended: %w", p.room, *err)
		}
	}
	open, err := s.metric("hanmadi_links")
	if err == nil && int(open) != len(all) {
		err = fmt.Errorf("the server has %d links, want %d", int(open), len(all))
	}
	return err
}
