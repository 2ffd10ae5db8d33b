package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog"
	"github.com/hanmadi/hanmadi/internal/directory"
	"github.com/hanmadi/hanmadi/internal/hook"
	"github.com/hanmadi/hanmadi/internal/live"
	"github.com/hanmadi/hanmadi/internal/moderate"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/token"
	"github.com/hanmadi/hanmadi/internal/web"
)

// setup is what dev and serve differ in.
type setup struct {
	Config
	verifier token.Config
	gateway  token.Gateway
	key      seal.Key
	sign     hook.Signer
	zone     *time.Location               // of the original's times
	one      bool                         // both faces on listen, for this machine only
	reread   func() (token.Config, error) // reads keys and secrets anew; nil: SIGHUP is a signal to stop
	hosts    []string                     // the only Host headers taken; none: any
}

// app is the running program, in the order in which it is put together.
type app struct {
	setup
	logger   *slog.Logger
	metrics  *prometheus.Registry
	log      *chatlog.SQLite
	index    *chatlog.Index // nil: nothing is searched
	tail     *chatlog.Tail
	verifier *token.Verifier
	hub      *live.Hub
	desk     *chat.Desk
	limits   *moderate.Limits
	keeper   keeper
	server   *directory.Client // the room server; nil: our own registry
	asker    *hook.Sender      // asks presenters to connect again; nil: nobody to ask
	web      *web.Server
	servers  []*http.Server
	ended    chan error // of servers that ended by themselves
}

// keeper opens and ends broadcasts behind the lines: our own registry, or what
// follows a room server.
type keeper interface {
	Watch(room string)
	Resume(ctx context.Context, log chat.Log) (rooms int, err error)
	Run(ctx context.Context)
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
	go keepMemory(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); a.keeper.Run(ctx) }()
	a.listen(listeners)
	a.web.SetState(web.StateReady)
	logger.Info("ready", "version", version(), "listen", listeners[0].Addr().String(), "log", a.log.ID())
	started()

	failure := a.untilStopped(signals)
	stopped := make(chan error, 1)
	go func() {
		cancel()
		<-watched
		stopped <- a.stop()
	}()
	for {
		select {
		case err := <-stopped:
			return errors.Join(failure, err)
		case sig := <-signals:
			if sig == syscall.SIGHUP && a.reread != nil {
				continue // it asks for keys, not for haste
			}
			return fmt.Errorf("stopped at once by a second signal (%s)", sig)
		}
	}
}

// untilStopped waits for a signal to stop, or for the error of a listener that
// failed. SIGHUP has the keys of tokens read again.
func (a *app) untilStopped(signals <-chan os.Signal) error {
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP && a.reread != nil {
				a.reloadKeys()
				continue
			}
			a.logger.Info("draining", "signal", sig.String(), "over", a.Drain.Over.String())
			return nil
		case err := <-a.ended:
			a.logger.Error("a listener failed", "error", err)
			return err
		}
	}
}

// reloadKeys takes the tokens' keys as they are now. What cannot be read
// changes nothing.
func (a *app) reloadKeys() {
	keys, err := a.reread()
	if err == nil {
		err = a.verifier.Reload(keys)
	}
	if err != nil {
		a.logger.Error("keys of tokens are as before: they could not be read again", "error", err)
		return
	}
	a.logger.Info("keys of tokens read again")
}

// open puts the parts together. The hub and the desk know each other: the desk
// nudges the hub's links, and a link takes its room at the desk.
func (a *app) open() (err error) {
	a.metrics = prometheus.NewRegistry()
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.setup.verifier.OnFetch = func(err error) {
		if err != nil {
			a.logger.Warn("the key set of tokens could not be fetched; the last one stays in use", "error", err)
		}
	}
	if a.verifier, err = token.New(a.setup.verifier); err != nil {
		return usageError{err}
	}
	path, err := chatlog.Path(a.Log.URL)
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	if err := a.openLog(ctx, path); err != nil {
		return err
	}
	if err := a.openOutside(); err != nil {
		return usageError{err}
	}
	a.openRooms()
	if _, err := a.keeper.Resume(ctx, a.tail); err != nil {
		return err
	}
	a.web = web.New(web.Options{
		Log: a.tail, Search: a.searcher(), Desk: a.desk, Hub: a.hub, Keys: seal.NewKeySet(a.key.Public()),
		Verify: a.verifier.Verify, Check: a.log.Check, NewID: chatlog.NewID, Origins: a.Link.Origins, Hosts: a.hosts,
		Limits: a.limits, Attempts: a.Limits.attempts(),
		Gateway: a.gateway, Original: a.Original.Serve, Zone: a.zone, CORS: a.CORS.Origins,
		Reading: web.Reading{Users: a.Read.Who == "users", Broadcast: a.Read.History == "broadcast"},
		Metrics: web.NewMetrics(a.metrics), Scrape: promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{}), Logger: a.logger,
	})
	return nil
}

// openOutside makes the clients of the platform's services, where there are any.
func (a *app) openOutside() (err error) {
	if a.Directory.URL != "" {
		a.server, err = directory.NewClient(directory.ClientOptions{URL: a.Directory.URL, Timeout: a.Directory.Timeout,
			Metrics: directory.NewMetrics(a.metrics)})
		if err != nil {
			return err
		}
	}
	if a.Signalling.ReconnectURL != "" {
		a.asker, err = hook.New(hook.Options{Name: "reconnect", URL: a.Signalling.ReconnectURL, Sign: a.sign,
			NewID: chatlog.NewID, Metrics: hook.NewMetrics(a.metrics), Logger: a.logger})
		if err != nil {
			return fmt.Errorf("signalling.reconnect_url: %w", err)
		}
	}
	return nil
}

// openRooms makes the desk, the links, and what keeps broadcasts.
func (a *app) openRooms() {
	watch := func(room string) { a.keeper.Watch(room) }
	a.hub = live.NewHub(live.Options{
		Log: a.tail, Key: a.key, Metrics: live.NewMetrics(a.metrics), Logger: a.logger, NewID: chatlog.NewID,
		Verify: a.verifier.Verify, Outlive: a.Link.OutliveToken, MaxLinks: a.Link.Max, PerAddress: a.Link.PerAddress, Unstarted: a.Link.Unstarted,
		MaxFollowers: a.Follow.Max, FollowersPerUser: a.Follow.PerUser, FollowersPerAddress: a.Follow.PerAddress,
		Take: a.takeLink, OnGone: watch,
		State: func(ctx context.Context, room string) (chat.State, error) { return a.desk.State(ctx, room) },
	})
	a.limits = moderate.NewLimits(a.Limits.rates())
	desk := chat.DeskOptions{NewID: chatlog.NewID, Limits: a.limits, QueueFor: a.Broadcast.QueueFor, OnStarted: watch, OnUnlinked: a.askBack}
	if a.server != nil {
		desk.Directory = a.server
	}
	a.desk = chat.NewDesk(a.tail, a.hub, desk)
	if a.server != nil {
		a.keeper = directory.NewFollower(a.desk, a.server, a.hub, a.hub.CloseEnded, a.logger)
	} else {
		a.keeper = directory.NewRegistry(a.desk, a.Broadcast.EndAfter, a.logger)
	}
}

// takeLink is the way of a presenter's link into the log.
func (a *app) takeLink(ctx context.Context, presenter chat.User, session string) (chat.State, error) {
	if a.Broadcast.Presenters == "role" && !slices.Contains(presenter.Claimed, a.Broadcast.PresenterRole) {
		return chat.State{}, chat.Refuse(chat.Forbidden)
	}
	st, err := a.desk.TakeLink(ctx, presenter, session)
	if err == nil {
		a.keeper.Watch(presenter.ID) // a room server may have something to say of it
	}
	return st, err
}

// askBack asks the signalling server to have a presenter connect again.
func (a *app) askBack(room string) {
	if a.asker != nil {
		a.asker.Send(room, []byte(`{"presenterIdx":"`+room+`","reason":"no_link"}`)) // an id needs no escapes
	}
}

// listen serves the faces on their listeners: one for both, or public and admin.
func (a *app) listen(listeners []net.Listener) {
	faces := []http.Handler{a.web.Public(), a.web.Admin()}
	if a.one {
		faces = []http.Handler{a.web.All()}
	}
	for i, l := range listeners {
		server := web.NewHTTPServer(faces[i], a.logger)
		if i == 0 {
			l = web.BoundListener(l, a.connectionsPerAddress(), a.trusted, a.web.Metrics)
		}
		a.servers = append(a.servers, server)
		go func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				a.ended <- err
			}
		}()
	}
}

// connectionsPerAddress is enough, unless it is set, for all the links that an
// address may have and as many requests beside them.
func (a *app) connectionsPerAddress() int {
	return cmp.Or(a.Limits.Connections, 2*a.Link.PerAddress)
}

// trusted reports whether everybody may be behind an address: the gateway's, or
// a proxy on this machine.
func (a *app) trusted(peer netip.Addr) bool {
	return peer.Unmap().IsLoopback() || a.gateway.Trusts(peer)
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
	if a.asker != nil {
		a.asker.Close()
	}
	if a.server != nil {
		a.server.Close()
	}
	errs = append(errs, a.closeLog())
	a.verifier.Close()
	a.logger.Info("stopped")
	return errors.Join(errs...)
}
