package web

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// handler answers a request or returns why not; one function answers errors.
type handler func(w http.ResponseWriter, r *http.Request) error

// route registers a handler under its pattern, which is also its metrics' label.
func (s *Server) route(m *http.ServeMux, pattern string, h handler) {
	m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		w.(*recorder).route = pattern
		if err := s.guarded(h, w, r); err != nil {
			s.refuse(w, r, err)
		}
	})
}

// guarded turns a panic into an error, so that it is answered and logged with
// the request's id like any other.
func (s *Server) guarded(h handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return h(w, r)
}

// finish puts around the routes what every request has.
func (s *Server) finish(m *http.ServeMux) http.Handler {
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.refuse(w, r, s.noRoute(m, w, r)) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w, requestID: s.requestID(r), route: "none"}
		rec.Header().Set("X-Request-Id", rec.requestID)
		rec.Header().Set("X-Content-Type-Options", "nosniff")
		if len(s.Hosts) > 0 && !slices.Contains(s.Hosts, strings.ToLower(r.Host)) {
			s.refuse(rec, r, chat.Refuse(chat.HostForeign))
		} else if answered, err := s.cors(rec, r); err != nil {
			s.refuse(rec, r, err)
		} else if !answered {
			m.ServeHTTP(rec, r)
		}
		took := time.Since(start)
		s.Metrics.answered(rec, took)
		s.Logger.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("request_id", rec.requestID),
			slog.String("route", rec.route), slog.Int("status", rec.status), slog.Duration("took", took))
	})
}

// noRoute tells an unknown path from a known one with another method.
func (s *Server) noRoute(m *http.ServeMux, w http.ResponseWriter, r *http.Request) error {
	var allowed []string
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := m.Handler(probe); pattern != "/" && pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		return chat.Refuse(chat.NotFound)
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return chat.Refuse(chat.MethodNotAllowed)
}

// requestID is the caller's, so that one request can be followed through the
// platform: X-Request-Id, else the trace id of traceparent (W3C Trace Context).
func (s *Server) requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); visible(id, 128) {
		return id
	}
	parts := strings.Split(r.Header.Get("Traceparent"), "-")
	if len(parts) >= 4 && len(parts[1]) == 32 && strings.Trim(parts[1], "0123456789abcdef") == "" {
		return parts[1]
	}
	return s.NewID()
}

// visible reports whether s is 1 to most visible ASCII characters.
func visible(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	requestID string
	route     string
	status    int
	attempt   attempt // of a request whose refusals count
	streams   bool    // for as long as both sides like
}

// WriteHeader implements [http.ResponseWriter].
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Hijack implements [http.Hijacker] for the WebSocket library, which does not
// ask by Unwrap.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r.status = http.StatusSwitchingProtocols
	return http.NewResponseController(r.ResponseWriter).Hijack()
}

// Unwrap serves [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// asRefusal makes every error one that can be shown. What is not a refusal is
// our own fault: it is logged whole and shown as internal.
func (s *Server) asRefusal(r *http.Request, requestID string, err error) *chat.Refusal {
	var ref *chat.Refusal
	if !errors.As(err, &ref) {
		s.Logger.Error("request failed", "request_id", requestID, "method", r.Method, "error", err)
		return &chat.Refusal{Code: chat.Internal, RetryAfter: 5 * time.Second}
	}
	if ref.Cause != nil {
		level := slog.LevelDebug
		if chat.Lookup(ref.Code).Status >= 500 {
			level = slog.LevelWarn
		}
		s.Logger.Log(r.Context(), level, "request refused", "request_id", requestID, "code", ref.Code, "error", ref.Cause)
	}
	return ref
}
