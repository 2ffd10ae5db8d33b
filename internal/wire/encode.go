package wire

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Encode returns f as it crosses the network. "type" is the first member, and
// what is optional and zero is left out. It does not judge the values, which
// are the caller's own. What [DecodeClient] or [DecodeServer] returned comes
// back the same from its encoding, as long as that keeps to the length they
// accept: it spells out members that were absent.
//
// The JSON is written here rather than by encoding/json, so that the length of
// a frame is known before it is built ([EventsFrameLen]) and stays the same
// with every version of Go.
func Encode(f Frame) []byte { return f.appendTo(nil) }

func (f Start) appendTo(b []byte) []byte {
	b = append(b, `{"type":"start","token":`...)
	b = AppendString(b, f.Token)
	if f.After != nil {
		b = append(b, `,"after":`...)
		b = strconv.AppendInt(b, *f.After, 10)
	}
	if f.Log != "" {
		b = append(b, `,"log":`...)
		b = AppendString(b, f.Log)
	}
	if f.Role != "" {
		b = append(b, `,"role":`...)
		b = AppendString(b, f.Role)
	}
	return append(b, '}')
}

func (f Relayed) appendTo(b []byte) []byte {
	b = append(b, `{"type":"relayed","seq":`...)
	b = strconv.AppendInt(b, f.Seq, 10)
	return append(b, '}')
}

func (f Token) appendTo(b []byte) []byte {
	b = append(b, `{"type":"token","token":`...)
	b = AppendString(b, f.Token)
	return append(b, '}')
}

func (Heartbeat) appendTo(b []byte) []byte { return append(b, textHeartbeat...) }
func (Ping) appendTo(b []byte) []byte      { return append(b, textPing...) }
func (Pong) appendTo(b []byte) []byte      { return append(b, textPong...) }

func (f Welcome) appendTo(b []byte) []byte {
	b = append(b, `{"type":"welcome","room":`...)
	b = AppendString(b, f.Room)
	b = append(b, `,"log":`...)
	b = AppendString(b, f.Log)
	b = append(b, `,"head":`...)
	b = strconv.AppendInt(b, f.Head, 10)
	b = append(b, `,"session":`...)
	b = AppendString(b, f.Session)
	b = append(b, `,"heartbeat_s":`...)
	b = strconv.AppendInt(b, int64(f.HeartbeatS), 10)
	return append(b, '}')
}

func (f Events) appendTo(b []byte) []byte {
	// Escaping makes JSON text about a quarter longer. Growing once rather than by
	// doubling allocates 14 KiB instead of 61 for a full frame.
	b = slices.Grow(b, len(f.Payload)+len(f.Payload)/4+256)
	b = append(b, `{"type":"events","payload":`...)
	b = AppendString(b, f.Payload)
	b = append(b, `,"kid":`...)
	b = AppendString(b, f.KID)
	b = append(b, `,"sig":`...)
	b = AppendString(b, f.Sig)
	return append(b, '}')
}

func (f Skipped) appendTo(b []byte) []byte {
	b = append(b, `{"type":"skipped","to":`...)
	b = strconv.AppendInt(b, f.To, 10)
	return append(b, '}')
}

func (f Error) appendTo(b []byte) []byte {
	b = append(b, `{"type":"error","code":`...)
	b = AppendString(b, f.Code)
	b = append(b, `,"detail":`...)
	b = AppendString(b, f.Detail)
	if f.RetryAfterS != 0 {
		b = append(b, `,"retry_after_s":`...)
		b = strconv.AppendInt(b, int64(f.RetryAfterS), 10)
	}
	return append(b, '}')
}

// EventsFrameLen is the length in bytes of the encoding of an [Events] frame
// whose payload takes payloadEscapedLen bytes (see [EscapedLen]).
func EventsFrameLen(payloadEscapedLen int, kid, sig string) int {
	const empty = len(`{"type":"events","payload":"","kid":"","sig":""}`)
	return empty + payloadEscapedLen + EscapedLen([]byte(kid)) + EscapedLen([]byte(sig))
}

// EscapedLen is how many bytes s takes inside a JSON string as [Encode] writes
// it, without the quotes. Texts that are each valid UTF-8 take together what
// they take one by one, so a packer can add up its events.
func EscapedLen(s []byte) int {
	if !utf8.Valid(s) {
		s = bytes.ToValidUTF8(s, []byte(replacement))
	}
	n := len(s)
	for _, c := range s {
		switch {
		case c > '\\': // most of what people type
		case c == '"', c == '\\', c == '\b', c == '\f', c == '\n', c == '\r', c == '\t':
			n++
		case c < ' ':
			n += escapedUnitLen - 1
		}
	}
	return n
}

// replacement stands for a run of bytes that are not UTF-8, which JSON cannot
// carry.
const replacement = "\uFFFD"

// AppendString appends s to b as a JSON string. It escapes only what JSON demands,
// in the shortest way: nothing here is ever part of an HTML page or a script.
func AppendString(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, replacement)
	}
	b = append(b, '"')
	plain := 0 // where the bytes begin that need no escape
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[plain:i]...)
		plain = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			const hex = "0123456789abcdef"
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&0xf])
		}
	}
	b = append(b, s[plain:]...)
	return append(b, '"')
}
