package web

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/moderate"
	"github.com/hanmadi/hanmadi/internal/text"
)

// meView answers "may I speak here?".
type meView struct {
	User           string    `json:"user"`
	Role           chat.Role `json:"role"`
	CanSend        bool      `json:"can_send"`
	Code           chat.Code `json:"code,omitempty"`   // why not
	Detail         string    `json:"detail,omitempty"` // the sentence to show
	NextAt         string    `json:"next_at,omitempty"`
	MaxLength      int       `json:"max_length"` // of a line, in code points
	Remaining      int       `json:"remaining"`  // lines that may be said at once
	TokenExpiresAt string    `json:"token_expires_at,omitempty"`
}

// me says what a line would be told, without one.
func (s *Server) me(w http.ResponseWriter, r *http.Request, a *attempt) error {
	user, err := s.user(r)
	if err != nil {
		return err
	}
	if err := a.by(user); err != nil {
		return err
	}
	room, err := roomOf(r)
	if err != nil {
		return err
	}
	err = s.Desk.MaySend(r.Context(), chat.Draft{Room: room, User: user, Address: a.address})
	now := time.Now()
	me := meView{User: user.ID, Role: user.RoleIn(room), CanSend: err == nil, MaxLength: text.MaxMessage,
		Remaining: s.remaining(user, room, now)}
	if !user.Expires.IsZero() {
		me.TokenExpiresAt = user.Expires.UTC().Format(chat.TimeFormat)
	}
	if err != nil {
		var ref *chat.Refusal
		if !errors.As(err, &ref) {
			return err
		}
		lang := languageOf(r)
		w.Header().Set("Content-Language", string(lang))
		w.Header().Add("Vary", "Accept-Language")
		me.Code, me.Detail = ref.Code, ref.Detail(lang)
		if ref.RetryAfter > 0 {
			me.NextAt = now.Add(ref.RetryAfter + time.Millisecond - 1).UTC().Format(chat.TimeFormat)
		}
	}
	s.setQuota(w.Header(), user, room, now)
	return answer(w, http.StatusOK, me)
}

// remaining is how many lines a user may say at once. Whoever is exempt has a
// full bucket for ever.
func (s *Server) remaining(user chat.User, room string, now time.Time) int {
	switch {
	case s.Limits == nil:
		return 0
	case moderate.Exempt(user, room):
		return s.Limits.UserRate().Burst
	}
	return s.Limits.User(user.ID, now).Left
}

// The names of the header fields, as net/http spells them.
const (
	headerQuota  = "Ratelimit"
	headerPolicy = "Ratelimit-Policy"
)

// quotaPolicy is the bucket of lines as draft-ietf-httpapi-ratelimit-headers
// writes it: so many in the time in which it fills.
func quotaPolicy(rate moderate.Rate) []string {
	fills := time.Duration(rate.Burst) * rate.Each
	return []string{`"user";q=` + strconv.Itoa(rate.Burst) + `;w=` + strconv.FormatInt(chat.WholeSeconds(fills), 10)}
}

// setQuota tells a user how many lines are left, and in how many seconds there
// will be one more. It is on the path of every line.
func (s *Server) setQuota(h http.Header, user chat.User, room string, now time.Time) {
	if s.Limits == nil || moderate.Exempt(user, room) {
		return
	}
	level := s.Limits.User(user.ID, now)
	var space [64]byte
	b := append(space[:0], `"user";r=`...)
	b = strconv.AppendInt(b, int64(level.Left), 10)
	if level.Next > 0 {
		b = append(b, ";t="...)
		b = strconv.AppendInt(b, chat.WholeSeconds(level.Next), 10)
	}
	h[headerQuota] = []string{string(b)}
	h[headerPolicy] = s.policy // shared by all answers; nobody changes it
}
