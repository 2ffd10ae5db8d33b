package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// anyOrigin in Options.CORS lets every site's pages read, without a token.
const anyOrigin = "*"

// What pages of other sites may send and see, see [Server.cors].
const (
	corsHeaders  = "authorization, idempotency-key, last-event-id, content-type"
	corsExposed  = "retry-after, ratelimit, ratelimit-policy, x-request-id"
	corsRemember = "7200" // seconds; browsers cut it to this anyway
)

// cors lets pages of the configured sites call what is about rooms (Fetch
// Standard, "CORS protocol"). Credentials of the browser are never among it: a
// token goes in a header, which a page has to know. It reports whether it has
// answered, which it does to the question before a call.
func (s *Server) cors(w http.ResponseWriter, r *http.Request) (answered bool, err error) {
	if len(s.CORS) == 0 || !strings.HasPrefix(r.URL.Path, "/v1/rooms/") {
		return false, nil
	}
	h := w.Header()
	if !slices.Equal(s.CORS, []string{anyOrigin}) {
		h.Add("Vary", "Origin")
	}
	origin := r.Header.Get("Origin")
	method := r.Header.Get("Access-Control-Request-Method")
	asks := r.Method == http.MethodOptions && method != "" && origin != ""
	listed := s.corsListed(origin)
	switch {
	case listed:
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", corsExposed)
	case slices.Contains(s.CORS, anyOrigin):
		h.Set("Access-Control-Allow-Origin", anyOrigin)
		h.Set("Access-Control-Expose-Headers", corsExposed)
	case asks:
		return false, chat.Refuse(chat.OriginForeign)
	}
	if !asks {
		return false, nil
	}
	h.Set("Access-Control-Max-Age", corsRemember)
	h.Set("Access-Control-Allow-Methods", "GET")
	h.Set("Access-Control-Allow-Headers", "last-event-id")
	if listed {
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		h.Set("Access-Control-Allow-Headers", corsHeaders)
	}
	w.WriteHeader(http.StatusNoContent)
	return true, nil
}

func (s *Server) corsListed(origin string) bool {
	return origin != anyOrigin && slices.Contains(s.CORS, strings.ToLower(origin))
}
