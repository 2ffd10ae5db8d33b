// Command hanmadi-bench measures the program as it runs: lines per second of
// its CPU beside a bare net/http server, times from a POST to the presenter's
// socket, memory of idle links, and what one bad room does to the others.
//
// It starts the servers itself, as processes on this machine, so that their CPU
// and memory are read from /proc and are theirs alone. Linux only.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type commands struct {
	All  allCmd  `cmd:"" default:"withargs" help:"Everything, one after the other."`
	Say  sayCmd  `cmd:"" help:"Lines per second and per second of CPU, and their times."`
	Idle idleCmd `cmd:"" help:"Memory and CPU of idle links."`
	Fair fairCmd `cmd:"" help:"What a loud sender and a presenter that does not read do to other rooms."`
	Bare bareCmd `cmd:"" hidden:"" help:"The bare server that the figures are compared with."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed := kong.Parse(&commands{}, kong.Name("hanmadi-bench"), kong.UsageOnError(), kong.BindTo(ctx, (*context.Context)(nil)))
	if err := parsed.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "hanmadi-bench:", err)
		os.Exit(1)
	}
}

// bench is what every measurement needs: the program, built as people run it,
// and a folder on the disk that is measured.
type bench struct {
	Binary string `placeholder:"FILE" help:"The program; built from this module where it is not given."`
	Dir    string `placeholder:"DIR" help:"Folder for the logs, on the disk that is to be measured; one is made in the temporary folder and removed."`
}

// open builds the program and makes the folder. done removes what was made.
func (b *bench) open(ctx context.Context) (done func(), err error) {
	made, err := os.MkdirTemp(b.Dir, "hanmadi-bench-")
	if err != nil {
		return nil, err
	}
	done = func() { os.RemoveAll(made) }
	b.Dir = made
	if b.Binary == "" {
		b.Binary = made + "/hanmadi"
		note("building the program")
		if err := command(ctx, "go", "build", "-trimpath", "-o", b.Binary, "github.com/hanmadi/hanmadi/cmd/hanmadi"); err != nil {
			done()
			return nil, err
		}
	}
	return done, nil
}

type allCmd struct {
	bench
}

// Run measures everything.
func (c *allCmd) Run(ctx context.Context) error {
	done, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer done()
	say := sayCmd{bench: c.bench, sayOptions: defaultSay()}
	if err := say.measure(ctx); err != nil {
		return err
	}
	fair := fairCmd{bench: c.bench, Runs: 5, For: 5 * time.Second}
	if err := fair.measure(ctx); err != nil {
		return err
	}
	idle := idleCmd{bench: c.bench, From: 1000, To: 10_000, Periods: 3}
	return idle.measure(ctx)
}

// note says on standard error what is going on.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, "… "+format+"\n", args...) }
