package wire

import "strconv"

// CloseCode is the status code of a WebSocket's close frame: why the server
// ended a link.
type CloseCode uint16

// Codes from 4000 to 4499 ask the page to connect again; those from 4500 to
// 4999 ask it not to.
const (
	CloseDraining        CloseCode = 4001 // this node is shutting down
	CloseTooSlow         CloseCode = 4002 // the page does not read what it is sent
	CloseSilent          CloseCode = 4003 // two heartbeats missed
	CloseInternal        CloseCode = 4004 // the server failed
	CloseTokenExpired    CloseCode = 4005 // come back with a new token
	CloseTooManyAttempts CloseCode = 4006 // come back later, when the error frame before it says

	CloseReplaced       CloseCode = 4500 // a newer link holds the room
	CloseBadToken       CloseCode = 4501 // the token is missing or was never good
	CloseBroadcastEnded CloseCode = 4502 // the presenter is not live any more
	CloseForbidden      CloseCode = 4503 // this user may not hold this link
	CloseProtocol       CloseCode = 4504 // the page sent what it must not
)

// Retry reports whether a client that sees c should connect again. It should
// after whatever we did not name, above all after 1006, which is all that a
// browser sees of a lost connection and of a refused upgrade.
func (c CloseCode) Retry() bool { return c < 4500 || c > 4999 }

// String returns a few words for close frames and logs. They are the same for
// a code every time, and at most 32 bytes long.
func (c CloseCode) String() string {
	switch c {
	case CloseDraining:
		return "draining"
	case CloseTooSlow:
		return "too slow"
	case CloseSilent:
		return "silent"
	case CloseInternal:
		return "internal"
	case CloseTokenExpired:
		return "token expired"
	case CloseTooManyAttempts:
		return "too many attempts"
	case CloseReplaced:
		return "replaced"
	case CloseBadToken:
		return "bad token"
	case CloseBroadcastEnded:
		return "broadcast ended"
	case CloseForbidden:
		return "forbidden"
	case CloseProtocol:
		return "protocol"
	}
	return "close code " + strconv.Itoa(int(c))
}
