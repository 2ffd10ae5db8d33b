package chat

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Code names a refusal. Codes are stable: clients decide by them.
type Code string

// Every way in which Hanmadi says no. What each means, its HTTP status and its
// sentences stand in [Catalogue].
const (
	BodyInvalid          Code = "body.invalid"
	BodyTooLarge         Code = "body.too_large"
	BodyType             Code = "body.type"
	BroadcastEndedCode   Code = "broadcast.ended"
	BroadcastNotRunning  Code = "broadcast.not_running"
	CursorForeign        Code = "cursor.foreign"
	DirectoryUnavailable Code = "directory.unavailable"
	Draining             Code = "draining"
	FollowersFull        Code = "followers.full"
	Forbidden            Code = "forbidden"
	FrameInvalid         Code = "frame.invalid"
	HostForeign          Code = "host.foreign"
	IdentityInvalid      Code = "identity.invalid"
	IdentityUntrusted    Code = "identity.untrusted"
	IdempotencyInFlight  Code = "idempotency.in_flight"
	IdempotencyInvalid   Code = "idempotency.invalid"
	IdempotencyMismatch  Code = "idempotency.mismatch"
	Internal             Code = "internal"
	LinkReplaced         Code = "link.replaced"
	LinkSilent           Code = "link.silent"
	LinkSlow             Code = "link.slow"
	LogOutcomeUnknown    Code = "log.outcome_unknown"
	LogUnavailable       Code = "log.unavailable"
	MessageBadCharacters Code = "message.bad_characters"
	MessageEmpty         Code = "message.empty"
	MessageTooLong       Code = "message.too_long"
	MethodNotAllowed     Code = "method.not_allowed"
	NotFound             Code = "not_found"
	OriginForeign        Code = "origin.foreign"
	Overloaded           Code = "overloaded"
	PresenterGone        Code = "presenter.disconnected"
	QueryInvalid         Code = "query.invalid"
	RateRequests         Code = "rate.requests"
	RateRoom             Code = "rate.room"
	RateUser             Code = "rate.user"
	ReplyNotFound        Code = "reply.not_found"
	RoomInvalid          Code = "room.invalid"
	SearchOff            Code = "search.off"
	TokenExpired         Code = "token.expired"
	TokenInvalid         Code = "token.invalid"
	TokenMismatch        Code = "token.mismatch"
	TokenMissing         Code = "token.missing"
	UpgradeRequired      Code = "upgrade.required"
)

// Refusal is an error that the one who asked should read: a stable code, the
// numbers its sentence names, and when to try again.
type Refusal struct {
	Code       Code
	Params     map[string]any // exactly the [Entry.Fields] of the code, shown beside it
	RetryAfter time.Duration  // 0: nothing is gained by waiting
	Cause      error          // for our own log, never shown
}

// Refuse makes a refusal with no numbers.
func Refuse(code Code) *Refusal { return &Refusal{Code: code} }

func (r *Refusal) Error() string {
	if r.Cause != nil {
		return string(r.Code) + ": " + r.Cause.Error()
	}
	return string(r.Code)
}

// Unwrap gives the cause, which may be nil.
func (r *Refusal) Unwrap() error { return r.Cause }

// Lang is a language that refusals are written in.
type Lang string

// The two languages of every sentence.
const (
	Korean  Lang = "ko"
	English Lang = "en"
)

// Entry is what the catalogue says of a code.
type Entry struct {
	Status  int // HTTP
	Retry   Retry
	Title   string // fixed English name, RFC 9457 title
	Korean  string // sentence with {params}; {wait} is RetryAfter
	English string
}

var paramPattern = regexp.MustCompile(`\{(\w+)\}`)

// Fields are the names of the params that every refusal of the code carries, in
// order: those that its sentences name, so that none can be forgotten.
func (e Entry) Fields() []string {
	var names []string
	for _, m := range paramPattern.FindAllStringSubmatch(e.English, -1) {
		if m[1] != waitParam {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// waitParam stands in sentences for RetryAfter, which is no param.
const waitParam = "wait"

// Waits reports whether every refusal of the code that HTTP answers says when to
// try again.
func (e Entry) Waits() bool { return e.Retry == RetryLater || e.Retry == RetrySame }

// Retry says what a client should do with the same request.
type Retry string

// The answers to "shall I send it again?".
const (
	RetryNever Retry = "never" // change something first
	RetryLater Retry = "later" // after Retry-After; at once where a link does not say
	RetryToken Retry = "token" // with a new token
	RetrySame  Retry = "same"  // after Retry-After, with the same Idempotency-Key, to learn the outcome
)

// Detail is the sentence to show, in a language, with its numbers.
func (r *Refusal) Detail(lang Lang) string {
	e := Lookup(r.Code)
	s := e.Korean
	if lang == English {
		s = e.English
	}
	if strings.Contains(s, "{"+waitParam+"}") {
		s = strings.ReplaceAll(s, "{"+waitParam+"}", Wait(r.RetryAfter, lang))
	}
	for k, v := range r.Params {
		s = strings.ReplaceAll(s, "{"+k+"}", fmt.Sprint(v))
	}
	return s
}

// Wait writes a time to wait as people say it, rounded up to whole seconds:
// "1분 30초", "1 min 30 s".
func Wait(d time.Duration, lang Lang) string {
	units := []string{"시간", "분", "초"}
	gap := ""
	if lang == English {
		units, gap = []string{"h", "min", "s"}, " "
	}
	left := max(1, WholeSeconds(d))
	var parts []string
	for i, size := range []int64{3600, 60, 1} {
		if n := left / size; n > 0 {
			parts = append(parts, fmt.Sprintf("%d%s%s", n, gap, units[i]))
		}
		left %= size
	}
	return strings.Join(parts, " ")
}

// WholeSeconds is a time to wait in seconds, rounded up: who comes back a moment
// too early is refused again.
func WholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Lookup gives the catalogue's entry of a code; a code that is not in it, which
// a test rules out, reads as Internal.
func Lookup(c Code) Entry {
	if e, ok := catalogue[c]; ok {
		return e
	}
	return catalogue[Internal]
}

// Catalogue lists every code with what it means. The map is a copy.
func Catalogue() map[Code]Entry {
	all := make(map[Code]Entry, len(catalogue))
	for c, e := range catalogue {
		all[c] = e
	}
	return all
}
