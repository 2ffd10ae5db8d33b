package directory

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
	"github.com/hanmadi/hanmadi/internal/live"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// station is a server without a room server: a log, the hub of its links, its
// desk and the registry, in fake time. Every link is of user 7.
type station struct {
	t        *testing.T
	log      *logtest.Memory
	hub      *live.Hub
	desk     *chat.Desk
	registry *Registry
	server   *http.Server
	dials    chan net.Conn
	stops    func()
	pages    []*websocket.Conn
}

// inStation runs a test on a station with an empty log, until it has stopped.
func inStation(t *testing.T, test func(t *testing.T, s *station)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &station{t: t, log: logtest.NewMemory("LOG")}
		s.start()
		defer func() { s.stop() }()
		test(t, s)
	})
}

func (s *station) start() {
	s.t.Helper()
	key, err := seal.NewKey()
	if err != nil {
		s.t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	s.hub = live.NewHub(live.Options{Log: s.log, Key: key, Metrics: live.NewMetrics(prometheus.NewRegistry()), Logger: logger, NewID: rand.Text,
		Take: func(ctx context.Context, presenter chat.User, session string) (chat.State, error) {
			return s.desk.TakeLink(ctx, presenter, session)
		},
		OnGone: func(room string) { s.registry.Watch(room) },
	})
	s.desk = chat.NewDesk(s.log, s.hub, chat.DeskOptions{NewID: rand.Text})
	s.registry = NewRegistry(s.desk, 0, logger)
	if _, err := s.registry.Resume(context.Background(), s.log); err != nil {
		s.t.Fatal(err)
	}
	s.dials = make(chan net.Conn)
	s.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = s.hub.Accept(w, r, live.Arrival{User: &chat.User{ID: "7", Nickname: "방송"}, Lang: chat.English})
	})}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.registry.Run(ctx) })
	running.Go(func() { _ = s.server.Serve(pipes{s.dials, ctx}) })
	s.stops = func() { cancel(); running.Wait() }
}

// stop ends the station as a kill does as far as anybody else can tell: nothing
// is logged.
func (s *station) stop() {
	for _, ws := range s.pages {
		_ = ws.CloseNow()
	}
	s.pages = nil
	s.stops()
	_ = s.server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.hub.Drain(ctx, 0)
	s.desk.Close()
}

// pipes is a listener of connections with no network.
type pipes struct {
	conns chan net.Conn
	ctx   context.Context
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// link connects the presenter's page, which answers heartbeats; unlink cuts it
// off.
func (s *station) link() (unlink func()) {
	s.t.Helper()
	dial := func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		s.dials <- far
		return near, nil
	}
	transport := &http.Transport{DialContext: dial}
	ws, _, err := websocket.Dial(context.Background(), "ws://station/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		s.t.Fatalf("link: %v", err)
	}
	s.pages = append(s.pages, ws)
	go func() {
		for {
			_, data, err := ws.Read(context.Background())
			if err != nil {
				return
			}
			if f, err := wire.DecodeServer(data); err == nil && f == wire.ServerFrame(wire.Heartbeat{}) {
				_ = ws.Write(context.Background(), websocket.MessageText, wire.Encode(wire.Heartbeat{}))
			}
		}
	}()
	synctest.Wait()
	return func() {
		_ = ws.CloseNow()
		synctest.Wait()
	}
}

func (s *station) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// say posts a line and gives what became of it: "linked", "queued" or the code
// of the refusal.
func (s *station) say() string {
	s.t.Helper()
	receipt, err := s.desk.Send(context.Background(), chat.Draft{Room: "7", User: chat.User{ID: "42", Nickname: "하늘"}, Text: "안녕하세요"})
	var ref *chat.Refusal
	switch {
	case errors.As(err, &ref):
		return string(ref.Code)
	case err != nil:
		s.t.Fatalf("say a line: %v", err)
	case receipt.Linked:
		return "linked"
	}
	return "queued"
}

func (s *station) wantSay(when, want string) {
	s.t.Helper()
	if got := s.say(); got != want {
		s.t.Errorf("%s: a line is %s, want %s", when, got, want)
	}
}

// rows are the whole log of the room.
func (s *station) rows() []chat.Row {
	s.t.Helper()
	rows, err := s.log.After(context.Background(), "7", 0, 10_000)
	if err != nil {
		s.t.Fatal(err)
	}
	return rows
}

// broadcasts are the rows that start and end broadcasts.
func (s *station) broadcasts() (states []string) {
	s.t.Helper()
	for _, row := range s.rows() {
		if row.Kind == chat.KindBroadcast {
			states = append(states, row.Details.State)
		}
	}
	return states
}

func (s *station) wantBroadcasts(when string, want ...string) {
	s.t.Helper()
	got := s.broadcasts()
	same := len(got) == len(want)
	for i := 0; same && i < len(got); i++ {
		same = got[i] == want[i]
	}
	if !same {
		s.t.Errorf("%s: the log says %v, want %v", when, got, want)
	}
}

const (
	gone  = string(chat.PresenterGone)
	ended = string(chat.BroadcastEndedCode)
)

func TestABroadcastLivesAsLongAsItsLink(t *testing.T) {
	inStation(t, func(_ *testing.T, s *station) {
		s.wantSay("before the presenter is there", ended)
		s.link()
		s.wantSay("linked", "linked")
		s.pass(5 * time.Hour)
		s.wantSay("five hours later", "linked")
		s.wantBroadcasts("five hours later", chat.BroadcastStarted)
	})
}

func TestLinesQueueThenWaitThenEndWhenThePresenterHasGone(t *testing.T) {
	inStation(t, func(t *testing.T, s *station) {
		unlink := s.link()
		s.pass(10 * time.Minute)
		unlink()
		s.wantSay("at once", "queued")
		s.pass(30*time.Second - time.Millisecond)
		s.wantSay("just before 30 s", "queued")
		s.pass(time.Millisecond)
		s.wantSay("at 30 s", gone)
		s.pass(60*time.Second - time.Millisecond)
		s.wantSay("just before 90 s", gone)
		s.wantBroadcasts("just before 90 s", chat.BroadcastStarted)
		s.pass(time.Second) // the registry looks once a second
		s.wantSay("at 90 s", ended)

		s.pass(time.Hour)
		s.wantSay("an hour later", ended)
		s.wantBroadcasts("an hour later", chat.BroadcastStarted, chat.BroadcastEnded)
		rows := s.rows()
		if last := rows[len(rows)-1]; last.Kind != chat.KindBroadcast || last.Staff.Reason != "presenter left" {
			t.Errorf("the last row is %+v, want the end, because the presenter left", last)
		}
	})
}

func TestALinkThatComesBackKeepsItsBroadcast(t *testing.T) {
	for name, away := range map[string]time.Duration{
		"in a moment": time.Millisecond, "after 29 s": 29 * time.Second, "after 31 s": 31 * time.Second, "after 89 s": 89 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			inStation(t, func(_ *testing.T, s *station) {
				unlink := s.link()
				for range 5 {
					s.pass(time.Minute)
					unlink()
					s.pass(away)
					unlink = s.link()
					s.wantSay("back", "linked")
				}
				s.pass(time.Hour)
				s.wantSay("an hour later", "linked")
				s.wantBroadcasts("an hour later", chat.BroadcastStarted)
			})
		})
	}
}

// TestALinkThatComesWhenItsBroadcastEnds is a race that either may win. Whoever
// does, the presenter who is linked is live.
func TestALinkThatComesWhenItsBroadcastEnds(t *testing.T) {
	for _, early := range []time.Duration{time.Second, time.Millisecond, 0, -time.Millisecond, -time.Second} {
		t.Run("by "+early.String(), func(t *testing.T) {
			inStation(t, func(_ *testing.T, s *station) {
				unlink := s.link()
				unlink()
				time.Sleep(90*time.Second - early)
				s.link()
				s.wantSay("linked again", "linked")
				s.pass(time.Hour)
				s.wantSay("an hour later", "linked")
			})
		})
	}
}

// slowLog takes its time with what changes who is live.
type slowLog struct{ *logtest.Memory }

func (l slowLog) Append(ctx context.Context, room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	time.Sleep(time.Second)
	return l.Memory.Append(ctx, room, after, rows)
}

// TestALinkThatIsOnItsWayKeepsItsBroadcast: when its row is being written the
// presenter is still absent to whoever looks, and the end that follows waits for
// its turn behind that row.
func TestALinkThatIsOnItsWayKeepsItsBroadcast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		presence := &switchable{linked: map[string]bool{}, since: time.Now()}
		desk := chat.NewDesk(slowLog{logtest.NewMemory("M")}, presence, chat.DeskOptions{NewID: rand.Text})
		if _, _, err := desk.StartBroadcast(t.Context(), "7", chat.User{Role: chat.RoleOperator}, chat.Opening{ID: "881"}); err != nil {
			t.Fatal(err)
		}
		registry := NewRegistry(desk, 0, slog.New(slog.DiscardHandler))
		registry.Watch("7")
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { registry.Run(ctx) })

		time.Sleep(88500 * time.Millisecond) // a moment before the end is due
		if _, err := desk.TakeLink(t.Context(), chat.User{ID: "7"}, "S1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if st, err := desk.State(t.Context(), "7"); err != nil || st.Broadcast.ID != "881" {
			t.Errorf("after a link came in at the last moment: got broadcast %q %v, want 881", st.Broadcast.ID, err)
		}
		stop()
		running.Wait()
		desk.Close()
	})
}

func TestABroadcastThatTheOperatorStartsNeedsALinkToo(t *testing.T) {
	start := func(s *station) {
		s.t.Helper()
		if _, _, err := s.desk.StartBroadcast(context.Background(), "7", chat.User{Role: chat.RoleOperator}, chat.Opening{ID: "881"}); err != nil {
			s.t.Fatal(err)
		}
		s.registry.Watch("7")
	}
	t.Run("no link comes", func(t *testing.T) {
		inStation(t, func(_ *testing.T, s *station) {
			s.pass(time.Hour) // the station has run for long: the broadcast has its own time
			start(s)
			s.pass(30*time.Second - time.Millisecond)
			s.wantSay("just before 30 s", "queued")
			s.pass(time.Second)
			s.wantSay("after 30 s", gone)
			s.pass(59 * time.Second)
			s.wantBroadcasts("just before 90 s", chat.BroadcastStarted)
			s.pass(time.Second)
			s.wantBroadcasts("after 90 s", chat.BroadcastStarted, chat.BroadcastEnded)
		})
	})
	t.Run("a link comes", func(t *testing.T) {
		inStation(t, func(_ *testing.T, s *station) {
			start(s)
			s.pass(89 * time.Second)
			s.link()
			s.pass(time.Hour)
			s.wantSay("an hour later", "linked")
			s.wantBroadcasts("an hour later", chat.BroadcastStarted)
		})
	})
}

func TestAfterARestartPresentersHaveTimeToComeBack(t *testing.T) {
	restart := func(s *station) {
		s.link()
		s.pass(time.Minute)
		s.stop()
		s.pass(time.Hour) // it was down for long
		s.start()
	}
	t.Run("none comes", func(t *testing.T) {
		inStation(t, func(_ *testing.T, s *station) {
			restart(s)
			s.pass(30*time.Second - time.Millisecond)
			s.wantSay("just before 30 s", "queued")
			s.pass(time.Millisecond)
			s.wantSay("at 30 s", gone)
			s.pass(60*time.Second - time.Millisecond)
			s.wantBroadcasts("just before 90 s", chat.BroadcastStarted)
			s.pass(time.Second)
			s.wantSay("at 90 s", ended)
			s.wantBroadcasts("at 90 s", chat.BroadcastStarted, chat.BroadcastEnded)
		})
	})
	t.Run("one comes", func(t *testing.T) {
		inStation(t, func(_ *testing.T, s *station) {
			restart(s)
			s.pass(89 * time.Second)
			s.link()
			s.pass(time.Hour)
			s.wantSay("an hour later", "linked")
			s.wantBroadcasts("an hour later", chat.BroadcastStarted)
		})
	})
	t.Run("it was over before", func(t *testing.T) {
		inStation(t, func(_ *testing.T, s *station) {
			unlink := s.link()
			unlink()
			s.pass(2 * time.Minute)
			s.stop()
			s.start()
			s.wantSay("after the restart", ended)
			s.pass(time.Hour)
			s.wantBroadcasts("an hour later", chat.BroadcastStarted, chat.BroadcastEnded)
		})
	})
}

// TestAnEndThatCannotBeLoggedIsTriedAgain: it is logged once, also when the log
// could not say that it was.
func TestAnEndThatCannotBeLoggedIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name    string
		written bool
		failure error
	}{
		{"surely not logged", false, chat.ErrLogUnavailable},
		{"outcome unknown, not logged", false, chat.ErrOutcomeUnknown},
		{"outcome unknown, logged", true, chat.ErrOutcomeUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inStation(t, func(t *testing.T, s *station) {
				unlink := s.link()
				unlink()
				began := time.Now()
				s.log.FailWith(func(string, []chat.Row) (bool, error) {
					if time.Since(began) < 100*time.Second {
						return tt.written, tt.failure
					}
					return false, nil
				})
				s.pass(99 * time.Second)
				if got := len(s.broadcasts()) == 2; got != tt.written {
					t.Errorf("while the log fails: the end is logged: %v, want %v", got, tt.written)
				}
				s.pass(2 * time.Second)
				s.wantSay("when it is back", ended)
				s.pass(time.Hour)
				s.wantBroadcasts("an hour later", chat.BroadcastStarted, chat.BroadcastEnded)
			})
		})
	}
}

// TestALinkThatIsToldNoMayHaveOpenedABroadcast: its rows are in the log though
// the log could not say so, and nobody is linked to end the broadcast by going.
func TestALinkThatIsToldNoMayHaveOpenedABroadcast(t *testing.T) {
	inStation(t, func(_ *testing.T, s *station) {
		s.log.FailWith(func(string, []chat.Row) (bool, error) { return true, chat.ErrOutcomeUnknown })
		s.link()
		s.log.FailWith(nil)
		s.wantSay("in the broadcast that nobody is linked to", "queued")
		s.pass(91 * time.Second)
		s.wantSay("91 s later", ended)
		s.wantBroadcasts("91 s later", chat.BroadcastStarted, chat.BroadcastEnded)
	})
}
