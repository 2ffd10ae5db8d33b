package live

import (
	"errors"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// ending is why a session ends: one value for the close frame, the error frame
// before it, the log line and the metric's label. The first reason wins.
type ending struct {
	label   string         // closed list, the metric's label
	code    wire.CloseCode // 0: nobody is there to read a close
	refusal *chat.Refusal
}

var (
	endGone         = &ending{label: "gone"}
	endDraining     = &ending{"draining", wire.CloseDraining, &chat.Refusal{Code: chat.Draining, RetryAfter: time.Second}}
	endTooSlow      = &ending{"too_slow", wire.CloseTooSlow, chat.Refuse(chat.LinkSlow)}
	endSilent       = &ending{"silent", wire.CloseSilent, chat.Refuse(chat.LinkSilent)}
	endTokenExpired = &ending{"token_expired", wire.CloseTokenExpired, chat.Refuse(chat.TokenExpired)}
	endReplaced     = &ending{"replaced", wire.CloseReplaced, chat.Refuse(chat.LinkReplaced)}
	endNotLive      = &ending{"broadcast_ended", wire.CloseBroadcastEnded, chat.Refuse(chat.BroadcastEndedCode)}
)

// endings lists every label there can be, so that metrics show zeros.
var endings = []string{"gone", "draining", "too_slow", "silent", "token_expired", "replaced", "broadcast_ended",
	"too_many", "bad_token", "forbidden", "protocol", "internal"}

func endProtocol(reason string) *ending {
	return &ending{"protocol", wire.CloseProtocol, &chat.Refusal{Code: chat.FrameInvalid, Params: map[string]any{"reason": reason}}}
}

// endFor picks the close code that says of a refusal what a client should do.
func endFor(err error) *ending {
	var r *chat.Refusal
	if !errors.As(err, &r) {
		r = &chat.Refusal{Code: chat.Internal, RetryAfter: 5 * time.Second, Cause: err}
	}
	switch r.Code {
	case chat.TokenExpired:
		return endTokenExpired
	case chat.TokenInvalid, chat.TokenMissing, chat.TokenMismatch, chat.IdentityInvalid, chat.IdentityUntrusted:
		return &ending{"bad_token", wire.CloseBadToken, r}
	case chat.RateRequests, chat.Overloaded:
		return &ending{"too_many", wire.CloseTooManyAttempts, r}
	case chat.Forbidden:
		return &ending{"forbidden", wire.CloseForbidden, r}
	case chat.BroadcastEndedCode:
		return endNotLive
	case chat.Draining:
		return endDraining
	default:
		return &ending{"internal", wire.CloseInternal, r}
	}
}
