package moderate

import (
	"net/netip"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Rates are the buckets of lines.
type Rates struct {
	User    Rate // of each user, over all rooms
	Room    Rate // of each room
	Address Rate // of each address
}

// Limits is how many lines may be said on this node: by a user, in a room, from
// an address. It implements [chat.Limits]. Presenters in their own room and
// operators cost nothing and are never refused.
type Limits struct {
	rates     Rates
	users     *Buckets[string]
	rooms     *Buckets[string]
	addresses *Buckets[netip.Addr]
}

var _ chat.Limits = (*Limits)(nil)

// NewLimits makes limits whose buckets are all full.
func NewLimits(rates Rates) *Limits {
	return &Limits{rates: rates, users: NewBuckets[string](rates.User, MaxBuckets),
		rooms: NewBuckets[string](rates.Room, MaxBuckets), addresses: NewBuckets[netip.Addr](rates.Address, MaxBuckets)}
}

// Take implements [chat.Limits].
func (l *Limits) Take(line *chat.Draft, now time.Time) error { return l.judge(line, now, true) }

// Check implements [chat.Limits].
func (l *Limits) Check(line *chat.Draft, now time.Time) error { return l.judge(line, now, false) }

// judge holds all the buckets of a line at once, in an order that is always the
// same, so that a line which one of them refuses is at no moment missing from
// another.
func (l *Limits) judge(line *chat.Draft, now time.Time, take bool) error {
	if Exempt(line.User, line.Room) {
		return nil
	}
	user := l.users.lock(line.User.ID, now)
	defer user.unlock()
	room := l.rooms.lock(line.Room, now)
	defer room.unlock()
	counted := line.Address.IsValid()
	var address holding
	if counted {
		address = l.addresses.lock(line.Address, now)
		defer address.unlock()
	}
	if wait := user.wait(); wait > 0 {
		return &chat.Refusal{Code: chat.RateUser, RetryAfter: wait}
	}
	if wait := room.wait(); wait > 0 {
		return &chat.Refusal{Code: chat.RateRoom, RetryAfter: wait}
	}
	if wait := address.wait(); wait > 0 {
		return &chat.Refusal{Code: chat.RateRequests, RetryAfter: wait}
	}
	if take {
		user.take()
		room.take()
		if counted {
			address.take()
		}
	}
	return nil
}

// Return implements [chat.Limits].
func (l *Limits) Return(line *chat.Draft, now time.Time) {
	if Exempt(line.User, line.Room) {
		return
	}
	l.users.Return(line.User.ID, now)
	l.rooms.Return(line.Room, now)
	if line.Address.IsValid() {
		l.addresses.Return(line.Address, now)
	}
}

// Exempt reports whether a user's lines in a room cost nothing.
func Exempt(user chat.User, room string) bool { return user.RoleIn(room) != chat.RoleViewer }

// UserRate is the rate of every user's bucket.
func (l *Limits) UserRate() Rate { return l.rates.User }

// User is how many lines a user may still say.
func (l *Limits) User(id string, now time.Time) Level { return l.users.Level(id, now) }

// Held counts the buckets that are not full.
func (l *Limits) Held(now time.Time) (users, rooms, addresses int) {
	return l.users.Held(now), l.rooms.Held(now), l.addresses.Held(now)
}

// Dropped counts the buckets that were forgotten before they were full.
func (l *Limits) Dropped() int64 {
	return l.users.Dropped() + l.rooms.Dropped() + l.addresses.Dropped()
}

// AddressOf is whose bucket an address has: IPv6 networks give every customer
// at least a /64, so that is one.
func AddressOf(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if !a.Is6() {
		return a
	}
	network, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a // 64 bits are in range of every IPv6 address
	}
	return network.Addr()
}
