package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog"
	"github.com/hanmadi/hanmadi/internal/directory"
	"github.com/hanmadi/hanmadi/internal/live"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/token"
	"github.com/hanmadi/hanmadi/internal/web"
)

// setup is what dev and serve differ in.
type setup struct {
	Config
	verifier token.Config
	key      seal.Key
	one      bool     // both faces on listen, for this machine only
	hosts    []string // the only Host headers taken; none: any
}

// app is the running program, in the order in which it is put together.
type app struct {
	setup
	logger   *slog.Logger
	metrics  *prometheus.Registry
	log      *chatlog.SQLite
	tail     *chatlog.Tail
	verifier *token.Verifier
	hub      *live.Hub
	desk     *chat.Desk
	registry *directory.Registry
	web      *web.Server
	servers  []*http.Server
	ended    chan error // of servers that ended by themselves
}

const (
	openTime = 30 * time.Second // to open the log, recovery of its WAL included
	stopTime = 15 * time.Second // for requests in flight and goodbyes, after the drain
)

// serve runs the program until a signal, then stops it in order. A second
// signal ends it at once. started is called when requests are taken.
func serve(s setup, listeners []net.Listener, logger *slog.Logger, signals <-chan os.Signal, started func()) error {
	a := &app{setup: s, logger: logger, ended: make(chan error, 2)}
	if err := a.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watched := make(chan struct{})
	go func() { defer close(watched); a.registry.Run(ctx) }()
	a.listen(listeners)
	a.web.SetState(web.StateReady)
	logger.Info("ready", "version", version(), "listen", listeners[0].Addr().String(), "log", a.log.ID())
	started()

	var failure error
	select {
	case sig := <-signals:
		logger.Info("draining", "signal", sig.String(), "over", a.Drain.Over.String())
	case failure = <-a.ended:
		logger.Error("a listener failed", "error", failure)
	}
	stopped := make(chan error, 1)
	go func() {
		cancel()
		<-watched
		stopped <- a.stop()
	}()
	select {
	case err := <-stopped:
		return errors.Join(failure, err)
	case sig := <-signals:
		return fmt.Errorf("stopped at once by a second signal (%s)", sig)
	}
}

// open puts the parts together. The hub and the desk know each other: the desk
// nudges the hub's links, and a link takes its room at the desk.
func (a *app) open() (err error) {
	a.metrics = prometheus.NewRegistry()
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if a.verifier, err = token.New(a.setup.verifier); err != nil {
		return usageError{err}
	}
	path, err := chatlog.Path(a.Log.URL)
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	logMetrics := chatlog.NewMetrics(a.metrics)
	if a.log, err = chatlog.OpenSQLite(ctx, path, logMetrics); err != nil {
		return err
	}
	a.tail = chatlog.NewTail(a.log, int(a.Log.Tail), logMetrics)
	a.hub = live.NewHub(live.Options{
		Log: a.tail, Key: a.key, Metrics: live.NewMetrics(a.metrics), Logger: a.logger, NewID: chatlog.NewID,
		Verify: a.verifier.Verify, Outlive: a.Link.OutliveToken, MaxLinks: a.Link.Max,
		Take: func(ctx context.Context, presenter chat.User, session string) (chat.State, error) {
			return a.desk.TakeLink(ctx, presenter, session)
		},
		OnGone: func(room string) { a.registry.Watch(room) },
	})
	a.desk = chat.NewDesk(a.tail, a.hub, chat.DeskOptions{NewID: chatlog.NewID, QueueFor: a.Broadcast.QueueFor,
		OnStarted: func(room string) { a.registry.Watch(room) }})
	a.registry = directory.NewRegistry(a.desk, a.Broadcast.EndAfter, a.logger)
	if _, err := a.registry.Resume(ctx, a.tail); err != nil {
		return err
	}
	a.web = web.New(web.Options{
		Log: a.tail, Desk: a.desk, Hub: a.hub, Keys: seal.NewKeySet(a.key.Public()),
		Verify: a.verifier.Verify, Check: a.log.Check, NewID: chatlog.NewID, Origins: a.Link.Origins, Hosts: a.hosts,
		Metrics: web.NewMetrics(a.metrics), Scrape: promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{}), Logger: a.logger,
	})
	return nil
}

// listen serves the faces on their listeners: one for both, or public and admin.
func (a *app) listen(listeners []net.Listener) {
	faces := []http.Handler{a.web.Public(), a.web.Admin()}
	if a.one {
		faces = []http.Handler{a.web.All()}
	}
	for i, l := range listeners {
		server := &http.Server{
			Handler: faces[i], ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
			IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		}
		a.servers = append(a.servers, server)
		go func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				a.ended <- err
			}
		}()
	}
}

// stop ends the program in the order that loses nothing: no newcomers, goodbye
// to the links, requests in flight to their end, what is being judged, the log.
func (a *app) stop() error {
	a.web.SetState(web.StateDraining)
	over := a.Drain.Over
	ctx, cancel := context.WithTimeout(context.Background(), over+stopTime)
	defer cancel()
	a.hub.Drain(ctx, over)
	var errs []error
	for _, server := range a.servers {
		errs = append(errs, server.Shutdown(ctx))
	}
	a.desk.Close()
	errs = append(errs, a.log.Close())
	a.verifier.Close()
	a.logger.Info("stopped")
	return errors.Join(errs...)
}
