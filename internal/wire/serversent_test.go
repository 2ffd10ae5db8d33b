package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestServerSentEvents(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []ServerSent
	}{
		{"as we write them", "id: 4\nevent: events\ndata: {}\n\n", []ServerSent{{"4", "events", []byte("{}")}}},
		{"two", "data: a\n\ndata: b\n\n", []ServerSent{{Data: []byte("a")}, {Data: []byte("b")}}},
		{"a comment", ":\n\n: words\n\n", []ServerSent{{}, {}}},
		{"no space after the colon", "id:4\ndata:a\n\n", []ServerSent{{ID: "4", Data: []byte("a")}}},
		{"two spaces after it", "data:  a\n\n", []ServerSent{{Data: []byte(" a")}}},
		{"several lines", "data: a\ndata:\ndata: b\n\n", []ServerSent{{Data: []byte("a\n\nb")}}},
		{"no value", "data\nid\n\n", []ServerSent{{Data: []byte{}}}},
		{"other line ends", "id: 4\r\ndata: a\r\n\r\n", []ServerSent{{ID: "4", Data: []byte("a")}}},
		{"fields that nobody knows", "retry: 3000\nx: y\nid: 2\n\n", []ServerSent{{ID: "2"}}},
		{"cut short", "data: a\n\ndata: b\n", []ServerSent{{Data: []byte("a")}}},
	} {
		r := NewServerSentReader(strings.NewReader(tt.in))
		var got []ServerSent
		e, err := r.Next()
		for ; err == nil; e, err = r.Next() {
			got = append(got, e)
		}
		if err != io.EOF || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestServerSentEventsAreBounded(t *testing.T) {
	for name, in := range map[string]string{
		"one line": "data: " + strings.Repeat("x", MaxServerFrame+1) + "\n\n", "no end": strings.Repeat("x", 1<<20),
		"many lines": strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 100) + "\n",
	} {
		if _, err := NewServerSentReader(strings.NewReader(in)).Next(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
	longest := ServerSent{ID: "9", Name: "events", Data: bytes.Repeat([]byte("x"), MaxServerFrame)}
	if got, err := NewServerSentReader(bytes.NewReader(longest.AppendTo(nil))).Next(); err != nil || !reflect.DeepEqual(got, longest) {
		t.Errorf("the longest: got %d bytes, %v", len(got.Data), err)
	}
}

func FuzzServerSent(f *testing.F) {
	for _, seed := range []string{"id: 4\nevent: events\ndata: {}\n\n", ":\n\n", "data\n\n", "data: a\r\ndata: b\r\n\r\n", "\n", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewServerSentReader(bytes.NewReader(data))
		for {
			e, err := r.Next()
			if err != nil {
				if err != io.EOF && !errors.Is(err, ErrInvalid) {
					t.Errorf("%q: %v", data, err)
				}
				return
			}
			again, err := NewServerSentReader(bytes.NewReader(e.AppendTo(nil))).Next()
			if bytes.HasSuffix(e.Data, []byte("\r")) || bytes.Contains(e.Data, []byte("\r\n")) || strings.HasSuffix(e.ID+e.Name, "\r") || strings.HasSuffix(e.ID, "\r") {
				continue // a line that ended with two of them
			}
			if err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("%q: got %q back from %q, %v", data, again, e, err)
			}
		}
	})
}
