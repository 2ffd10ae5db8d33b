package web

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/live"
	"github.com/hanmadi/hanmadi/internal/socket"
)

// link opens a presenter's WebSocket.
func (s *Server) link(w http.ResponseWriter, r *http.Request, a *attempt) error {
	return s.openLink(w, r, a, nil)
}

// originalLink opens one of the original platform's, /chatting.
func (s *Server) originalLink(w http.ResponseWriter, r *http.Request, a *attempt) error {
	return s.openLink(w, r, a, s.Zone)
}

// openLink opens a WebSocket of a dialect. What is wrong with the request itself
// is an HTTP status; what is wrong with the user is told after the upgrade.
func (s *Server) openLink(w http.ResponseWriter, r *http.Request, by *attempt, original *time.Location) error {
	if !s.originAllowed(r) {
		return chat.Refuse(chat.OriginForeign)
	}
	if !socket.Upgradable(r) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Sec-Websocket-Version", socket.Version)
		return chat.Refuse(chat.UpgradeRequired)
	}
	told := *by // what is told after the upgrade counts when the request is no more
	a := live.Arrival{Lang: languageOf(r), Original: original, OnRefused: told.count}
	if by.address.IsValid() {
		a.Address = by.address.String()
	}
	user, err := s.user(r)
	switch {
	case err == nil:
		a.User = &user
		c, err := parseCursor(r.URL.Query())
		if err != nil {
			return err
		}
		a.After, a.Log = c.After, c.Log
	case !isCode(err, chat.TokenMissing):
		a.Refused = err
	}
	return s.Hub.Accept(w, r, a)
}

// originAllowed refuses pages of other sites: a gateway that turns a cookie into
// a header would let any of them open a link. Programs send no Origin.
func (s *Server) originAllowed(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	switch len(origins) {
	case 0:
		return true
	case 1:
		return slices.Contains(s.Origins, strings.ToLower(origins[0]))
	default:
		return false
	}
}

func (s *Server) jwks(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "application/jwk-set+json")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("Access-Control-Allow-Origin", "*") // viewers verify on the pages of any site
	_, _ = w.Write(s.Keys.JSON())
	return nil
}

// document serves a description of the interface, also to tools on other sites.
func document(data []byte) handler {
	return func(w http.ResponseWriter, _ *http.Request) error {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "public, max-age=300")
		h.Set("Access-Control-Allow-Origin", "*")
		_, _ = w.Write(data)
		return nil
	}
}

func (s *Server) livez(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, map[string]string{"status": "alive"})
}

// readyz says whether requests should come here. The log of this node is a file
// on its own disk: when that cannot be written, another node is better.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	status, degraded := "ready", []string{}
	switch State(s.state.Load()) {
	case StateStarting:
		status = "starting"
	case StateDraining:
		status = "draining"
	}
	if err := s.Check(r.Context()); err != nil {
		degraded = append(degraded, "log")
		if status == "ready" {
			status = "failing"
		}
	}
	code := http.StatusOK
	if status != "ready" {
		code = http.StatusServiceUnavailable
	}
	return answer(w, code, struct {
		Status   string   `json:"status"`
		Degraded []string `json:"degraded"`
	}{status, degraded})
}

// readAll reads a body into a buffer of its announced size, which is a hint.
func readAll(r io.Reader, size int64) ([]byte, error) {
	buf := make([]byte, 0, min(max(size, 512), MaxBody)+1)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
}
