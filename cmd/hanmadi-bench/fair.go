package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

type fairCmd struct {
	bench
	Runs int           `default:"5" help:"Runs with and without the disturbance, alternating; the median counts."`
	For  time.Duration `default:"5s" help:"Time of each."`
}

// Run measures fairness.
func (c *fairCmd) Run(ctx context.Context) error {
	done, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer done()
	return c.measure(ctx)
}

func (c *fairCmd) measure(ctx context.Context) error {
	s, err := c.startHanmadi(ctx, "fair")
	if err != nil {
		return err
	}
	defer s.stop()
	a, err := s.gather(ctx)
	if err != nil {
		return err
	}
	defer a.leave()
	l := load{addr: s.listen, tokens: speakers(s, 0), next: new(atomic.Int64), sent: a.sent}
	full, err := l.closed(ctx, 3*time.Second)
	if err != nil {
		return err
	}
	if _, err := a.settle(ctx); err != nil {
		return err
	}
	rate := float64(full.lines) / full.took.Seconds() / 2

	var post, toLink [2]latencies // of quiet and disturbed runs: their p99s
	for i := range 2 * c.Runs {
		disturbed := i % 2
		note("fairness: run %d of %d at %.0f lines/s", i+1, 2*c.Runs, rate)
		p, k, err := c.round(ctx, s, a, &l, rate, disturbed == 1)
		if err != nil {
			return err
		}
		post[disturbed].add(p)
		toLink[disturbed].add(k)
	}
	fmt.Printf("\nFairness: open loop at half load (%.0f lines/s), median p99 of %d runs without and with a sender at full speed in a room of its own and a presenter that does not read\n", rate, c.Runs)
	for _, row := range []struct {
		name string
		l    [2]latencies
	}{{"POST", post}, {"POST to presenter", toLink}} {
		quiet, loud := row.l[0].quantile(0.5), row.l[1].quantile(0.5)
		fmt.Printf("  %-18s %s, %s: × %.2f\n", row.name, short(quiet), short(loud), float64(loud)/float64(quiet))
	}
	return nil
}

func (c *fairCmd) round(ctx context.Context, s *server, a *audience, l *load, rate float64, disturbed bool) (post, toLink time.Duration, err error) {
	if disturbed {
		stop, err := c.disturb(ctx, s)
		if err != nil {
			return 0, 0, err
		}
		defer stop()
	}
	r, err := l.open(ctx, rate, c.For)
	if err != nil {
		return 0, 0, err
	}
	times, err := a.settle(ctx)
	return r.post.quantile(0.99), times.quantile(0.99), err
}

// disturb has one sender say lines as fast as they are answered, in the room of
// a presenter who never reads.
func (c *fairCmd) disturb(ctx context.Context, s *server) (stop func(), err error) {
	deaf, err := s.present(ctx, "deaf", nil)
	if err != nil {
		return nil, err
	}
	conn, err := dial(s.listen)
	if err != nil {
		return nil, err
	}
	token := s.tokenOf("loud", "")
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := int64(0); ; n++ {
			select {
			case <-done:
				return
			default:
			}
			if _, err := conn.say("deaf", token, line(n)); err != nil {
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
		conn.conn.Close()
		deaf.conn.Drop()
	}, nil
}
