package web

import (
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/moderate"
)

// attempts are the refusals that users and addresses have had lately. Whoever
// has had too many is told so before anything of a request is read.
type attempts struct {
	users     *moderate.Buckets[string]
	addresses *moderate.Buckets[netip.Addr]
}

func newAttempts(rate moderate.Rate) attempts {
	return attempts{moderate.NewBuckets[string](rate, moderate.MaxBuckets), moderate.NewBuckets[netip.Addr](rate, moderate.MaxBuckets)}
}

// attempt is a request whose refusal counts, and against whom.
type attempt struct {
	attempts *attempts
	address  netip.Addr // the zero Addr is exempt
	user     string     // "" until it is known
	refused  bool       // by the buckets of attempts themselves
}

// counted answers a request whose refusals count: against its address, and
// against its user once that is known. Our own failures (5xx) are not theirs.
//
// It comes before the Idempotency-Key is looked at, because that is a lookup in
// the log: whoever is refused here learns the first answer a little later, with
// the same key.
func (s *Server) counted(h func(http.ResponseWriter, *http.Request, *attempt) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		a := &w.(*recorder).attempt
		*a = attempt{attempts: &s.attempts, address: s.addressOf(r)}
		err := a.byAddress()
		if err == nil {
			err = h(w, r, a)
		}
		a.count(err)
		return err
	}
}

// addressOf is whose limits a request counts against, the zero Addr for a
// gateway that names nobody.
func (s *Server) addressOf(r *http.Request) netip.Addr {
	client, exempt := s.Gateway.Client(r.Header, peerOf(r))
	if exempt {
		return netip.Addr{}
	}
	return moderate.AddressOf(client)
}

func (a *attempt) byAddress() error {
	if !a.address.IsValid() {
		return nil
	}
	return a.refuseIfEmpty(a.attempts.addresses.Level(a.address, time.Now()))
}

// by says who makes the attempt.
func (a *attempt) by(user chat.User) error {
	a.user = user.ID
	return a.refuseIfEmpty(a.attempts.users.Level(user.ID, time.Now()))
}

func (a *attempt) refuseIfEmpty(level moderate.Level) error {
	if level.Left > 0 {
		return nil
	}
	a.refused = true
	return &chat.Refusal{Code: chat.RateRequests, RetryAfter: level.Next}
}

// count counts a refusal. One by the buckets themselves does not: it would cost
// everybody at an address what one of them does to get refused.
func (a *attempt) count(err error) {
	if err == nil || a.refused || !sendersFault(err) {
		return
	}
	now := time.Now()
	if a.address.IsValid() {
		a.attempts.addresses.Take(a.address, now)
	}
	if a.user != "" {
		a.attempts.users.Take(a.user, now)
	}
}

func sendersFault(err error) bool {
	var ref *chat.Refusal
	if !errors.As(err, &ref) {
		return errors.Is(err, errNoPresenter)
	}
	status := chat.Lookup(ref.Code).Status
	return status >= 400 && status < 500
}
