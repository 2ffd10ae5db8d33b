// Package web is the face of Hanmadi: its routes on one screen, the shapes of
// its JSON, and how a refusal becomes an answer.
package web

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/live"
	"github.com/hanmadi/hanmadi/internal/moderate"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/spec"
	"github.com/hanmadi/hanmadi/internal/token"
)

// Options are set once.
type Options struct {
	Log      chat.Log
	Search   chat.Searcher // nil: search is switched off
	Desk     *chat.Desk
	Hub      *live.Hub
	Keys     seal.KeySet
	Verify   func(token string) (chat.User, error) // errors are *chat.Refusal
	Gateway  token.Gateway                         // whose identity headers are believed
	Check    func(context.Context) error           // can rows be written here?
	NewID    func() string                         // request ids, where none is given
	Origins  []string                              // that may open a link from a browser; "https://example.com"
	CORS     []string                              // origins whose pages may call what is about rooms; "*": all, to read without a token
	Reading  Reading
	Original bool             // serve the original platform's calls
	Zone     *time.Location   // of the times in them
	Hosts    []string         // the only Host headers taken; none: any
	Limits   *moderate.Limits // the desk's, to say how many lines are left; nil: nothing is said
	Attempts moderate.Rate    // refusals that a user, and an address, may have; zero: 100, and 10 a second
	Metrics  *Metrics
	Scrape   http.Handler // /metrics
	Logger   *slog.Logger
}

// Server answers HTTP. Methods may be called concurrently.
type Server struct {
	Options
	attempts attempts
	policy   []string // of the users' bucket, as a header's values
	state    atomic.Int32
}

// State is how far the program's life has come, for /readyz.
type State int32

// A server starts in StateStarting.
const (
	StateStarting State = iota
	StateReady
	StateDraining
)

// New makes a server. It is not ready until SetState says so.
func New(o Options) *Server {
	if o.Attempts == (moderate.Rate{}) {
		o.Attempts = moderate.Per(100, 10*time.Second)
	}
	s := &Server{Options: o, attempts: newAttempts(o.Attempts)}
	if o.Limits != nil {
		s.policy = quotaPolicy(o.Limits.UserRate())
	}
	s.Metrics.observe(s)
	return s
}

// SetState changes what /readyz says.
func (s *Server) SetState(st State) { s.state.Store(int32(st)) }

// Public is what viewers, presenters and their gateway reach.
func (s *Server) Public() http.Handler {
	m := http.NewServeMux()
	s.public(m)
	return s.finish(m)
}

// Admin is what the platform's operators and their monitoring reach.
func (s *Server) Admin() http.Handler {
	m := http.NewServeMux()
	s.admin(m)
	return s.finish(m)
}

// All is both faces on one address, for one machine.
func (s *Server) All() http.Handler {
	m := http.NewServeMux()
	s.public(m)
	s.admin(m)
	return s.finish(m)
}

func (s *Server) public(m *http.ServeMux) {
	s.route(m, "POST /v1/rooms/{room}/messages", s.counted(s.say))
	s.route(m, "GET /v1/rooms/{room}/me", s.counted(s.me))
	s.route(m, "GET /v1/rooms/{room}/events", s.events)
	s.route(m, "GET /v1/rooms/{room}/head", s.head)
	s.route(m, "GET /v1/rooms/{room}", s.room)
	s.route(m, "GET /v1/presenter", s.counted(s.link))
	if s.Original {
		s.route(m, "POST /send/message", s.originalSay)
		s.route(m, "GET /chatting", s.counted(s.originalLink))
	}
	s.route(m, "GET /.well-known/jwks.json", s.jwks)
	s.route(m, "GET /problems/{code}", s.problemPage)
	s.route(m, "GET /openapi.json", document(spec.OpenAPI()))
	s.route(m, "GET /asyncapi.json", document(spec.AsyncAPI()))
}

func (s *Server) admin(m *http.ServeMux) {
	s.route(m, "PUT /v1/rooms/{room}/broadcast", s.startBroadcast)
	s.route(m, "DELETE /v1/rooms/{room}/broadcast", s.endBroadcast)
	s.route(m, "POST /check", s.checkLive)
	s.route(m, "GET /livez", s.livez)
	s.route(m, "GET /readyz", s.readyz)
	s.route(m, "GET /metrics", func(w http.ResponseWriter, r *http.Request) error { s.Scrape.ServeHTTP(w, r); return nil })
}
