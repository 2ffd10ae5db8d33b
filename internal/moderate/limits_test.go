package moderate

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

var usual = Rates{User: Per(20, 30*time.Second), Room: Per(200, time.Second), Address: Per(3000, 30*time.Second)}

func line(user, room, address string) *chat.Draft {
	d := &chat.Draft{Room: room, User: chat.User{ID: user}}
	if address != "" {
		d.Address = netip.MustParseAddr(address)
	}
	return d
}

func wantCode(t *testing.T, what string, err error, code chat.Code, wait time.Duration) {
	t.Helper()
	var ref *chat.Refusal
	if !errors.As(err, &ref) || ref.Code != code || ref.RetryAfter != wait {
		t.Errorf("%s: got %v (%+v), want %s after %s", what, err, ref, code, wait)
	}
}

func TestUserHasABucketOverAllRooms(t *testing.T) {
	l, now := NewLimits(usual), time.Now()
	for i := range 20 {
		if err := l.Take(line("42", fmt.Sprint("r", i), ""), now); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
	}
	wantCode(t, "line 21", l.Take(line("42", "7", ""), now), chat.RateUser, 1500*time.Millisecond)
	if err := l.Take(line("43", "7", ""), now); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	now = now.Add(1500 * time.Millisecond)
	if err := l.Take(line("42", "7", ""), now); err != nil {
		t.Errorf("1.5 s later: %v", err)
	}
	wantCode(t, "and one more", l.Take(line("42", "7", ""), now), chat.RateUser, 1500*time.Millisecond)
}

func TestRoomAndAddressHaveBuckets(t *testing.T) {
	l, now := NewLimits(Rates{User: Per(20, 30*time.Second), Room: Per(3, time.Second), Address: Per(5, 5*time.Second)}), time.Now()
	say := func(user, room, address string) error { return l.Take(line(user, room, address), now) }
	for i := range 3 {
		if err := say(fmt.Sprint("u", i), "7", "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, "the room's fourth", say("u9", "7", "192.0.2.1"), chat.RateRoom, time.Second/3)
	for i := range 2 {
		if err := say(fmt.Sprint("v", i), "8", "192.0.2.1"); err != nil {
			t.Fatalf("the address has used 3 of 5: %v", err)
		}
	}
	wantCode(t, "the address's sixth", say("v9", "8", "192.0.2.1"), chat.RateRequests, time.Second)
	for name, address := range map[string]string{"another address": "192.0.2.2", "none": ""} {
		if err := say("w", "9", address); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A line that one bucket refuses costs none of the others.
func TestRefusedLineCostsNothing(t *testing.T) {
	l, now := NewLimits(Rates{User: Per(5, time.Hour), Room: Per(2, time.Hour), Address: Per(3, time.Hour)}), time.Now()
	for range 2 {
		if err := l.Take(line("42", "7", "192.0.2.1"), now); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		if err := l.Take(line("42", "7", "192.0.2.1"), now); err == nil {
			t.Fatal("the room is full, and took a line")
		}
	}
	if got := l.User("42", now).Left; got != 3 {
		t.Errorf("the user has %d lines left, want 3", got)
	}
	if got := l.addresses.Level(netip.MustParseAddr("192.0.2.1"), now).Left; got != 1 {
		t.Errorf("the address has %d lines left, want 1", got)
	}
	if err := l.Take(line("42", "8", "192.0.2.1"), now); err != nil {
		t.Fatal(err)
	}
	if err := l.Take(line("42", "8", "192.0.2.1"), now); err == nil {
		t.Fatal("the address is used up, and a line was taken from it")
	}
	if user, room := l.User("42", now).Left, l.rooms.Level("8", now).Left; user != 2 || room != 1 {
		t.Errorf("after the address refused: the user has %d, the room %d; want 2 and 1", user, room)
	}
}

func TestReturnAndCheck(t *testing.T) {
	l, now := NewLimits(Rates{User: Per(1, time.Hour), Room: Per(1, time.Hour), Address: Per(1, time.Hour)}), time.Now()
	d := line("42", "7", "192.0.2.1")
	for i := range 3 {
		if err := l.Check(d, now); err != nil {
			t.Fatalf("round %d: checked: %v", i, err)
		}
		if err := l.Take(d, now); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if l.Check(d, now) == nil || l.Take(d, now) == nil {
			t.Fatalf("round %d: a bucket of one gave two", i)
		}
		l.Return(d, now)
	}
	l = NewLimits(usual)
	for range 3 {
		if err := l.Take(d, now); err != nil {
			t.Fatal(err)
		}
	}
	l.Return(d, now)
	if user, room, address := l.User("42", now).Left, l.rooms.Level("7", now).Left, l.addresses.Level(d.Address, now).Left; user != 18 || room != 198 || address != 2998 {
		t.Errorf("three taken, one given back: %d, %d and %d are left; want 18, 198 and 2998", user, room, address)
	}
}

func TestPresenterAndOperatorAreExempt(t *testing.T) {
	l, now := NewLimits(Rates{User: Per(1, time.Hour), Room: Per(1, time.Hour), Address: Per(1, time.Hour)}), time.Now()
	presenter := line("7", "7", "192.0.2.1")
	operator := line("op", "7", "192.0.2.1")
	operator.User.Role = chat.RoleOperator
	for range 100 {
		for _, d := range []*chat.Draft{presenter, operator} {
			if err := l.Take(d, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.Return(presenter, now)
	if err := l.Take(line("42", "7", "192.0.2.1"), now); err != nil {
		t.Errorf("their lines took a viewer's room or address: %v", err)
	}
	elsewhere := line("7", "8", "")
	if err := l.Take(elsewhere, now); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "the presenter in another room", l.Take(line("7", "9", ""), now), chat.RateUser, time.Hour)
}

func TestAddressOf(t *testing.T) {
	for in, want := range map[string]string{"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::"} {
		if got := AddressOf(netip.MustParseAddr(in)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	if got := AddressOf(netip.Addr{}); got.IsValid() {
		t.Errorf("none: got %s", got)
	}
}

func TestLineAllocatesNothing(t *testing.T) {
	l, now := NewLimits(Rates{User: Per(1_000_000, time.Second), Room: Per(1_000_000, time.Second), Address: Per(1_000_000, time.Second)}), time.Now()
	d := line("42", "7", "2001:db8::1")
	if got := testing.AllocsPerRun(1000, func() { _ = l.Take(d, now); l.Return(d, now) }); got != 0 {
		t.Errorf("%v allocations for a line, want none", got)
	}
}

// BenchmarkTake is what all limits cost a line, with as many talking as in
// `make bench`.
func BenchmarkTake(b *testing.B) {
	l := NewLimits(Rates{User: Per(1_000_000, time.Second), Room: Per(1_000_000, time.Second), Address: Per(1_000_000, time.Second)})
	lines := make([]*chat.Draft, 1000)
	for i := range lines {
		lines[i] = line(fmt.Sprint("user", i), fmt.Sprint("room", i%16), fmt.Sprintf("192.0.2.%d", i%32))
	}
	now := time.Now()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := l.Take(lines[i%len(lines)], now.Add(time.Duration(i)*time.Microsecond)); err != nil {
			b.Fatal(err)
		}
	}
}
