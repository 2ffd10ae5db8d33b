package wire

import (
	"bufio"
	"bytes"
	"io"
	"slices"
)

// ServerSent is an event of a stream of server-sent events (WHATWG HTML,
// section 9.2). What is "" or nil is absent; a comment is the zero event.
type ServerSent struct {
	ID   string // where a client that loses the stream goes on
	Name string
	Data []byte
}

// AppendTo writes the event. Neither ID nor Name may have a line break.
func (e ServerSent) AppendTo(b []byte) []byte {
	b = slices.Grow(b, len(e.ID)+len(e.Name)+len(e.Data)+32)
	if e.ID != "" {
		b = append(append(append(b, "id: "...), e.ID...), '\n')
	}
	if e.Name != "" {
		b = append(append(append(b, "event: "...), e.Name...), '\n')
	}
	if e.Data != nil {
		for line := range bytes.SplitSeq(e.Data, []byte{'\n'}) {
			b = append(append(append(b, "data: "...), line...), '\n')
		}
	}
	return append(b, '\n')
}

// ServerSentReader reads a stream of events.
type ServerSentReader struct{ lines *bufio.Scanner }

// NewServerSentReader reads from r. Lines end with "\n" or "\r\n".
func NewServerSentReader(r io.Reader) *ServerSentReader {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, MaxServerFrame+len("data: \r\n"))
	return &ServerSentReader{lines}
}

// Next returns the next event, or comment, or [io.EOF] at the stream's end, also
// in the middle of an event. It refuses, with an [*InvalidError], data longer
// than MaxServerFrame.
func (r *ServerSentReader) Next() (ServerSent, error) {
	var e ServerSent
	for r.lines.Scan() {
		line := r.lines.Bytes()
		if len(line) == 0 {
			return e, nil
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(name) {
		case "id":
			e.ID = string(value)
		case "event":
			e.Name = string(value)
		case "data":
			if e.Data != nil {
				e.Data = append(e.Data, '\n')
			}
			if e.Data = append(e.Data, value...); e.Data == nil {
				e.Data = []byte{}
			}
			if len(e.Data) > MaxServerFrame {
				return ServerSent{}, invalidf("an event of more than %d bytes", MaxServerFrame)
			}
		}
	}
	if err := r.lines.Err(); err != nil && err != bufio.ErrTooLong {
		return ServerSent{}, err
	} else if err != nil {
		return ServerSent{}, invalidf("a line of more than %d bytes", MaxServerFrame)
	}
	return ServerSent{}, io.EOF
}
