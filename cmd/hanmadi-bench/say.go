package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

type sayOptions struct {
	For  time.Duration `default:"10s" help:"Time of each closed-loop run."`
	Runs int           `default:"3" help:"Runs of each server, alternating; the median counts."`
	Rate float64       `default:"1000" help:"Lines per second of the open loop."`
}

func defaultSay() sayOptions { return sayOptions{For: 10 * time.Second, Runs: 3, Rate: 1000} }

type sayCmd struct {
	bench
	sayOptions `embed:""`
}

// Run measures lines.
func (c *sayCmd) Run(ctx context.Context) error {
	done, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer done()
	return c.measure(ctx)
}

// run is one closed-loop run and what it cost the server.
type run struct {
	result
	cpu      time.Duration
	toLink   latencies
	resident int64
	group    float64
}

func (r *run) perSecond() float64    { return float64(r.lines) / r.took.Seconds() }
func (r *run) perCPUSecond() float64 { return float64(r.lines) / r.cpu.Seconds() }

func (c *sayCmd) measure(ctx context.Context) error {
	sync, err := c.syncTime()
	if err != nil {
		return err
	}
	var bare, full, fresh, search []run
	for i := range c.Runs {
		note("run %d of %d: the bare server", i+1, c.Runs)
		if err := appendRun(&bare)(c.bare(ctx)); err != nil {
			return err
		}
		note("run %d of %d: hanmadi", i+1, c.Runs)
		if err := appendRun(&full)(c.hanmadi(ctx, fmt.Sprint("full", i), 0)); err != nil {
			return err
		}
	}
	note("hanmadi, every token seen for the first time")
	if err := appendRun(&fresh)(c.hanmadi(ctx, "fresh", 100_000)); err != nil { // more tokens than lines in that time
		return err
	}
	note("hanmadi with the search index, until it has caught up")
	if err := appendRun(&search)(c.hanmadi(ctx, "search", 0, "HANMADI_LOG_SEARCH=true")); err != nil {
		return err
	}
	note("open loop at %.0f lines/s", c.Rate)
	post, toLink, err := c.openLoop(ctx)
	if err != nil {
		return err
	}

	base := medianOf(bare, (*run).perCPUSecond)
	fmt.Printf("\nLines of %d code points, %d keep-alive connections, %d rooms with a linked presenter each, %d senders; median of %d runs of %s\n",
		lineRunes, connections, rooms, senders, c.Runs, c.For)
	fmt.Printf("  4 KiB written and synced on this disk: %s\n", short(sync))
	fmt.Printf("  %-34s %10s %14s %7s\n", "", "lines/s", "lines/CPU s", "ratio")
	for _, row := range []struct {
		name string
		runs []run
	}{{"bare net/http, reads and answers 201", bare}, {"hanmadi", full}, {"hanmadi, no token cached", fresh}, {"hanmadi with the search index", search}} {
		perCPU := medianOf(row.runs, (*run).perCPUSecond)
		fmt.Printf("  %-36s %8.0f %14.0f %7.2f\n", row.name, medianOf(row.runs, (*run).perSecond), perCPU, perCPU/base)
	}
	last := full[len(full)-1]
	fmt.Printf("  hanmadi under full load: rows per commit %.1f, resident memory %.0f MiB, POST %s\n", last.group, float64(last.resident)/(1<<20), &last.post)
	fmt.Printf("  hanmadi at %.0f lines/s (open loop): POST %s; POST to presenter %s\n", c.Rate, &post, &toLink)
	return nil
}

func appendRun(to *[]run) func(run, error) error {
	return func(r run, err error) error { *to = append(*to, r); return err }
}

func medianOf(runs []run, of func(*run) float64) float64 {
	var l latencies
	for i := range runs {
		l.add(time.Duration(of(&runs[i]) * 1000))
	}
	return float64(l.quantile(0.5)) / 1000
}

// speakers says who says line n: with fresh, each time with another token.
func speakers(s *server, fresh int64) func(n int64) (room, token string) {
	tokens := make([]string, max(senders, fresh))
	for i := range tokens {
		extra := ""
		if fresh > 0 {
			extra = strconv.Itoa(i)
		}
		tokens[i] = s.tokenOf(fmt.Sprint("u", i%senders), extra)
	}
	return func(n int64) (string, string) {
		i := n % int64(len(tokens))
		return roomName(int(i)), tokens[i]
	}
}

func (c *sayCmd) bare(ctx context.Context) (run, error) {
	s, err := c.startBare(ctx)
	if err != nil {
		return run{}, err
	}
	defer s.stop()
	l := load{addr: s.listen, tokens: speakers(s, 0), next: new(atomic.Int64)}
	return c.timed(ctx, s, &l, nil)
}

// hanmadi is a run against the program; with fresh, each line comes with another
// of so many tokens.
func (c *sayCmd) hanmadi(ctx context.Context, name string, fresh int64, env ...string) (run, error) {
	s, err := c.startHanmadi(ctx, name, env...)
	if err != nil {
		return run{}, err
	}
	defer s.stop()
	a, err := s.gather(ctx)
	if err != nil {
		return run{}, err
	}
	defer a.leave()
	l := load{addr: s.listen, tokens: speakers(s, fresh), next: new(atomic.Int64), sent: a.sent}
	return c.timed(ctx, s, &l, a)
}

// timed warms a server up and measures it until the last line is where it
// belongs.
func (c *sayCmd) timed(ctx context.Context, s *server, l *load, a *audience) (out run, err error) {
	settle := func() (latencies, error) {
		if a == nil {
			return latencies{}, nil
		}
		times, err := a.settle(ctx)
		if err != nil {
			return times, err
		}
		return times, s.caughtUp(ctx)
	}
	if _, err := l.closed(ctx, time.Second); err != nil {
		return out, err
	}
	if _, err := settle(); err != nil {
		return out, err
	}
	before, err := s.cpu()
	if err != nil {
		return out, err
	}
	if out.result, err = l.closed(ctx, c.For); err != nil {
		return out, err
	}
	if out.toLink, err = settle(); err != nil {
		return out, err
	}
	after, err := s.cpu()
	out.cpu = after - before
	if err != nil || a == nil {
		return out, err
	}
	if out.resident, err = s.resident(); err != nil {
		return out, err
	}
	out.group, err = s.groupSize()
	return out, err
}

// caughtUp waits until what goes on behind the lines has ended.
func (s *server) caughtUp(ctx context.Context) error {
	for {
		behind, err := s.metric("hanmadi_search_rows_behind")
		switch {
		case errors.Is(err, errNoMetric): // no index
			return nil
		case err != nil || behind == 0:
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *server) groupSize() (float64, error) {
	rows, err := s.metric("hanmadi_log_group_rows_sum")
	if err != nil {
		return 0, err
	}
	groups, err := s.metric("hanmadi_log_group_rows_count")
	return rows / groups, err
}

func (c *sayCmd) openLoop(ctx context.Context) (post, toLink latencies, err error) {
	s, err := c.startHanmadi(ctx, "open")
	if err != nil {
		return post, toLink, err
	}
	defer s.stop()
	a, err := s.gather(ctx)
	if err != nil {
		return post, toLink, err
	}
	defer a.leave()
	l := load{addr: s.listen, tokens: speakers(s, 0), next: new(atomic.Int64), sent: a.sent}
	if _, err := l.open(ctx, c.Rate, 2*time.Second); err != nil {
		return post, toLink, err
	}
	if _, err := a.settle(ctx); err != nil {
		return post, toLink, err
	}
	r, err := l.open(ctx, c.Rate, c.For)
	if err != nil {
		return post, toLink, err
	}
	toLink, err = a.settle(ctx)
	return r.post, toLink, err
}
