// Command signalling-hook is a signalling server's side of hanmadi's reconnect
// request, with nothing but the standard library: it verifies the signature,
// drops repeats, and tells the presenter's page, over the connection that the
// page holds to it, to open its link again. docs/signalling-hook.md explains it,
// and hanmadi's own tests run it.
//
// Pages listen here by server-sent events, GET /pages/{presenterIdx}, which
// stand in for the WebSocket that a real signalling server has already.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9100", "address to listen on")
	secretFile := flag.String("secret-file", "", "file with what signalling.secret of hanmadi says")
	flag.Parse()
	secret, err := os.ReadFile(*secretFile)
	if err != nil {
		log.Fatal(err)
	}
	key, err := keyOf(strings.TrimSpace(string(secret)))
	if err != nil {
		log.Fatal(err)
	}
	s := &server{secret: key, seen: map[string]time.Time{}, pages: map[string]map[chan struct{}]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reconnect", s.reconnect)
	mux.HandleFunc("GET /pages/{presenter}", s.page)
	log.Printf("listening on %s", *listen)
	log.Fatal((&http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}).ListenAndServe())
}

// keyOf reads a secret as hanmadi does: as it is, or, after whsec_, in Base64.
func keyOf(secret string) ([]byte, error) {
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		return base64.StdEncoding.DecodeString(encoded)
	}
	return []byte(secret), nil
}

type server struct {
	secret []byte

	mu    sync.Mutex
	seen  map[string]time.Time              // guarded by mu: ids of requests, and when they came
	pages map[string]map[chan struct{}]bool // guarded by mu: open pages of each presenter
}

const (
	maxBody   = 4 << 10
	tolerance = 5 * time.Minute // between hanmadi's clock and ours
)

// reconnect takes hanmadi's request. Whatever is not 2xx is sent once more, so a
// repeat is answered like the first.
func (s *server) reconnect(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the body did not arrive whole", http.StatusBadRequest)
		return
	}
	if err := verify(s.secret, r.Header, body, time.Now()); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var request struct {
		PresenterIdx string `json:"presenterIdx"`
		Reason       string `json:"reason"`
	}
	if err := json.Unmarshal(body, &request); err != nil || request.PresenterIdx == "" {
		http.Error(w, "this is not a reconnect request", http.StatusBadRequest)
		return
	}
	pages, fresh := s.tell(r.Header.Get("webhook-id"), request.PresenterIdx)
	log.Printf("presenter %s (%s): fresh %t, pages told %d", request.PresenterIdx, request.Reason, fresh, pages)
	w.WriteHeader(http.StatusNoContent)
}

// verify checks a request by Standard Webhooks (standardwebhooks.com): one of
// the signatures is HMAC-SHA256 over "id.timestamp.body", and the timestamp is
// of now.
func verify(secret []byte, h http.Header, body []byte, now time.Time) error {
	id, timestamp := h.Get("webhook-id"), h.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return errors.New("webhook-timestamp is missing, or minutes off")
	}
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	want := mac.Sum(nil)
	for _, signature := range strings.Fields(h.Get("webhook-signature")) {
		encoded, isHMAC := strings.CutPrefix(signature, "v1,")
		got, err := base64.StdEncoding.DecodeString(encoded)
		if isHMAC && err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return errors.New("no signature verifies")
}

// tell wakes the pages of a presenter, unless the request was seen before.
func (s *server) tell(id, presenter string) (pages int, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for old, at := range s.seen {
		if now.Sub(at) > 2*tolerance { // its timestamp would be refused by now
			delete(s.seen, old)
		}
	}
	if _, repeat := s.seen[id]; repeat {
		return 0, false
	}
	s.seen[id] = now
	for page := range s.pages[presenter] {
		select {
		case page <- struct{}{}: // capacity 1: one word that waits is as good as many
		default:
		}
	}
	return len(s.pages[presenter]), true
}

// page is a presenter's page that listens. Who may listen for whom is decided by
// the login of a real signalling server; this one has none.
func (s *server) page(w http.ResponseWriter, r *http.Request) {
	told := make(chan struct{}, 1)
	presenter := r.PathValue("presenter")
	s.mu.Lock()
	if s.pages[presenter] == nil {
		s.pages[presenter] = map[chan struct{}]bool{}
	}
	s.pages[presenter][told] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(s.pages[presenter], told); len(s.pages[presenter]) == 0 {
			delete(s.pages, presenter)
		}
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, ": listening\n\n")
	for {
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-told:
			fmt.Fprint(w, "event: reconnect\ndata: {}\n\n")
		case <-r.Context().Done():
			return
		}
	}
}
