package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Bounds of frames, in bytes. What decodes refuses longer ones; a socket that
// reads frames should stop at the same length.
const (
	MaxClientFrame = 8 << 10
	MaxServerFrame = 64 << 10

	// MaxEventsFrame bounds an Events frame as encoded: one DataChannel message
	// everywhere. Whoever packs events keeps to it, see [EventsFrameLen].
	MaxEventsFrame = 14 << 10

	MaxToken = 4 << 10 // a token in a frame
	MaxLogID = 64      // the id of a log in a frame
)

// MaxSeq is the greatest number that a frame carries as a seq: JavaScript holds
// no greater integer exactly.
const MaxSeq = 1<<53 - 1

// RoleStandby in a [Start] asks to wait and take over when the link that holds
// the room ends.
const RoleStandby = "standby"

// ErrUnknownType means that a frame is in order but of a type that we do not
// know. A client passes over such a frame, because a newer server may send it.
var ErrUnknownType = errors.New("wire: unknown type of frame")

// Frame is one message of the link, in either direction.
type Frame interface {
	appendTo(b []byte) []byte
	check() error
}

// ClientFrame is what a page sends: [Start], [Relayed], [Token], [Heartbeat] or
// [Ping], never a pointer.
type ClientFrame interface {
	Frame
	fromClient()
}

// ServerFrame is what the server sends: [Welcome], [Events], [Skipped],
// [Heartbeat], [Error] or [Pong], never a pointer.
type ServerFrame interface {
	Frame
	fromServer()
}

// Start begins a link. It must be the first frame, unless the upgrade carried a
// token.
type Start struct {
	Token string `json:"token"` // at most MaxToken bytes; "" if absent
	After *int64 `json:"after"` // the last seq the page has, 0 to MaxSeq; nil: from the running broadcast's start
	Log   string `json:"log"`   // the log that After belongs to, at most MaxLogID bytes; "" if the page does not say
	Role  string `json:"role"`  // "" or RoleStandby
}

// Relayed says that the DataChannel took everything up to Seq.
type Relayed struct {
	Seq int64 `json:"seq"` // 0 to MaxSeq
}

// Token is a fresh token on a living link.
type Token struct {
	Token string `json:"token"` // at most MaxToken bytes; "" if absent
}

// Heartbeat comes from the server at an interval; a page answers each with one
// of its own.
type Heartbeat struct{}

// Ping is the bare text "ping", which the server answers with [Pong].
type Ping struct{}

// Welcome answers [Start].
type Welcome struct {
	Room       string `json:"room"`
	Log        string `json:"log"`         // another log than the page's: the page drops what it has
	Head       int64  `json:"head"`        // the room's last seq, 0 to MaxSeq
	Session    string `json:"session"`     // for support: names this link in the server's log
	HeartbeatS int    `json:"heartbeat_s"` // seconds between heartbeats, at least 1
}

// Events carries rows of the log. Payload is JSON text as a string, so that its
// bytes, which Sig signs, survive any relay.
type Events struct {
	Payload string `json:"payload"`
	KID     string `json:"kid"` // names the key
	Sig     string `json:"sig"`
}

// Skipped says that no events up to To will come.
type Skipped struct {
	To int64 `json:"to"` // a seq, 0 to MaxSeq
}

// Error says why the server is about to close the link.
type Error struct {
	Code        string `json:"code"`          // stable, for programs
	Detail      string `json:"detail"`        // for people
	RetryAfterS int    `json:"retry_after_s"` // seconds; 0 if the server does not say
}

// Pong is the bare text "pong".
type Pong struct{}

const (
	textPing = "ping"
	textPong = "pong"

	// textHeartbeat is a heartbeat as everybody writes it. It is all that most
	// links ever say, and known by its bytes: reading it as JSON takes a stack of
	// 8 KiB, which the goroutine of an idle link then keeps.
	textHeartbeat = `{"type":"heartbeat"}`
)

// DecodeClient returns the frame that a page sent. It refuses with an
// [*InvalidError] what [Decode] would, a frame longer than MaxClientFrame, and
// a member out of its bounds; and with [ErrUnknownType] a "type" that is absent
// or none of a client's. Unknown members are ignored. data is not kept.
func DecodeClient(data []byte) (ClientFrame, error) {
	switch string(data) {
	case textPing:
		return Ping{}, nil
	case textHeartbeat:
		return Heartbeat{}, nil
	}
	typ, err := frameType(data, MaxClientFrame)
	if err != nil {
		return nil, err
	}
	var f ClientFrame
	switch typ {
	case "start":
		f, err = decodeFrame(data, Start{})
	case "relayed":
		f, err = decodeFrame(data, Relayed{Seq: absent})
	case "token":
		f, err = decodeFrame(data, Token{})
	case "heartbeat":
		f = Heartbeat{}
	default:
		err = unknownType(typ)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// DecodeServer returns the frame that the server sent. It refuses as
// [DecodeClient] does, with MaxServerFrame for the length.
func DecodeServer(data []byte) (ServerFrame, error) {
	if string(data) == textPong {
		return Pong{}, nil
	}
	typ, err := frameType(data, MaxServerFrame)
	if err != nil {
		return nil, err
	}
	var f ServerFrame
	switch typ {
	case "welcome":
		f, err = decodeFrame(data, Welcome{Head: absent})
	case "events":
		f, err = decodeFrame(data, Events{})
	case "skipped":
		f, err = decodeFrame(data, Skipped{To: absent})
	case "heartbeat":
		f = Heartbeat{}
	case "error":
		f, err = decodeFrame(data, Error{})
	default:
		err = unknownType(typ)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// absent is the value of a required number before decoding. It is out of
// bounds, so a frame that leaves the number out, or null, is refused.
const absent = -1

// frameType scans a frame of at most limit bytes and returns its type.
func frameType(data []byte, limit int) (string, error) {
	if len(data) > limit {
		return "", invalidf("frame of %d bytes, at most %d", len(data), limit)
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := Decode(data, &head); err != nil {
		return "", err
	}
	return head.Type, nil
}

func unknownType(typ string) error { return fmt.Errorf("%w: %.32q", ErrUnknownType, typ) }

// decodeFrame decodes scanned data over the defaults in f.
func decodeFrame[F Frame](data []byte, f F) (F, error) {
	if err := json.Unmarshal(data, &f); err != nil {
		return f, unmarshalError(err)
	}
	return f, f.check()
}

func (f Start) check() error {
	if f.After != nil {
		if err := checkSeq("after", *f.After); err != nil {
			return err
		}
	}
	if len(f.Log) > MaxLogID {
		return invalidf("log of %d bytes, at most %d", len(f.Log), MaxLogID)
	}
	if f.Role != "" && f.Role != RoleStandby {
		return invalidf("role is neither absent nor %q", RoleStandby)
	}
	return checkToken(f.Token)
}

func (f Relayed) check() error { return checkSeq("seq", f.Seq) }
func (f Token) check() error   { return checkToken(f.Token) }
func (Heartbeat) check() error { return nil }
func (Ping) check() error      { return nil }

func (f Welcome) check() error {
	if f.HeartbeatS < 1 || f.HeartbeatS > math.MaxInt32 {
		return invalidf("heartbeat_s missing or out of range")
	}
	return checkSeq("head", f.Head)
}

func (Events) check() error    { return nil }
func (f Skipped) check() error { return checkSeq("to", f.To) }

func (f Error) check() error {
	// Bounded so that the seconds fit a time.Duration with room to add to.
	if f.RetryAfterS < 0 || f.RetryAfterS > math.MaxInt32 {
		return invalidf("retry_after_s out of range")
	}
	return nil
}

func (Pong) check() error { return nil }

func checkSeq(name string, seq int64) error {
	if seq < 0 || seq > MaxSeq {
		return invalidf("%s missing or out of range", name)
	}
	return nil
}

func checkToken(token string) error {
	if len(token) > MaxToken {
		return invalidf("token of %d bytes, at most %d", len(token), MaxToken)
	}
	return nil
}

func (Start) fromClient()     {}
func (Relayed) fromClient()   {}
func (Token) fromClient()     {}
func (Heartbeat) fromClient() {}
func (Ping) fromClient()      {}

func (Welcome) fromServer()   {}
func (Events) fromServer()    {}
func (Skipped) fromServer()   {}
func (Heartbeat) fromServer() {}
func (Error) fromServer()     {}
func (Pong) fromServer()      {}
