package web

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/live"
)

// Reading is the policy of all rooms: who may read, and how far back. The zero
// value lets everybody read everything.
type Reading struct {
	Users     bool // only whoever has a valid token
	Broadcast bool // only the running broadcast; what was before it shows as hidden
}

// mayRead says who asks, nil for nobody in particular, unless they may not.
func (s *Server) mayRead(r *http.Request) (*chat.User, error) {
	user, err := s.user(r)
	switch {
	case err == nil:
		return &user, nil
	case !s.Reading.Users && isCode(err, chat.TokenMissing):
		return nil, nil
	}
	return nil, err
}

// first is the first row of a room that readers are shown.
func (p Reading) first(st chat.State) int64 {
	if p.Broadcast {
		return st.Running()
	}
	return 1
}

// cache lets everybody's caches hold an answer for some seconds, where it is the
// same for everybody. It is never for long: a line may be hidden later.
func (p Reading) cache(h http.Header, seconds int) {
	if p.Users {
		h.Set("Cache-Control", "private, no-store")
		return
	}
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(seconds))
}

// follow answers with a stream of server-sent events.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, c cursor) error {
	room, err := roomOf(r)
	if err != nil {
		return err
	}
	after, err := followAfter(r.Header, c)
	if err != nil {
		return err
	}
	user, err := s.mayRead(r)
	if err != nil {
		return err
	}
	f := live.Following{Room: room, User: user, After: after, Log: c.Log, Running: s.Reading.Broadcast, Lang: languageOf(r)}
	if client := s.addressOf(r); client.IsValid() {
		f.Address = client.String()
	}
	w.(*recorder).streams = true
	return s.Hub.Follow(w, r, f)
}

// followAfter is the place to follow from: what a browser that comes back says
// wins over the query that it came with first.
func followAfter(h http.Header, c cursor) (*int64, error) {
	if c.Before != nil {
		return nil, invalidQuery("before does not go with a stream")
	}
	values := h.Values("Last-Event-ID")
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return c.After, nil
	}
	seq, err := parseSeq(values[0])
	if err != nil || len(values) > 1 {
		return nil, invalidQuery("Last-Event-ID")
	}
	return seq, nil
}

// wantsStream reports whether a request asks for server-sent events by name and
// does not prefer JSON. Whoever takes anything gets a page.
func wantsStream(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false // HEAD is answered as for a page, and ends
	}
	var stream, page float64
	for _, accept := range strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",") {
		kind, params, err := mime.ParseMediaType(accept)
		if err != nil {
			continue
		}
		q, err := strconv.ParseFloat(params["q"], 64)
		if err != nil {
			q = 1
		}
		switch kind {
		case "text/event-stream":
			stream = q
		case "application/json":
			page = q
		}
	}
	return stream > 0 && stream >= page
}
