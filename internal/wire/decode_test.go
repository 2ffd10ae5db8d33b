package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// line is a body as a POST would bring it.
type line struct {
	Text    string         `json:"text"`
	ReplyTo int64          `json:"reply_to"`
	Data    map[string]any `json:"data"`
	At      time.Time      `json:"at"`
}

func TestDecode(t *testing.T) {
	tests := []struct {
		name, in string
		want     line
	}{
		{"empty object", `{}`, line{}},
		{"fields", `{"text":"안녕","reply_to":7}`, line{Text: "안녕", ReplyTo: 7}},
		{"white space", " \t\r\n{ \"text\" \n:\t\"a\" } \r\n", line{Text: "a"}},
		{"unknown members", `{"text":"a","x":{"y":[1,{"z":null}]}}`, line{Text: "a"}},
		{"unknown number beyond any type", `{"text":"a","x":1e400}`, line{Text: "a"}},
		{"null leaves the field", `{"text":null,"data":null,"reply_to":null}`, line{}},
		{"name in another case", `{"Text":"a"}`, line{Text: "a"}},
		{"escaped name", `{"te\u0078t":"a"}`, line{Text: "a"}},
		{"same name in different objects", `{"data":{"text":{"text":[{"a":1},{"a":2}]}},"text":"b"}`,
			line{Text: "b", Data: map[string]any{"text": map[string]any{"text": []any{map[string]any{"a": 1.0}, map[string]any{"a": 2.0}}}}}},
		{"same name before and after a nested object", `{"data":{"a":{"b":1},"b":2},"a":3}`,
			line{Data: map[string]any{"a": map[string]any{"b": 1.0}, "b": 2.0}}},
		{"a value equal to a name", `{"text":"text","data":{"a":"text","b":["text","text"]}}`,
			line{Text: "text", Data: map[string]any{"a": "text", "b": []any{"text", "text"}}}},
		{"structure inside strings", `{"text":"}]{[\",\":\"","reply_to":1}`, line{Text: `}]{[",":"`, ReplyTo: 1}},
		{"escaped backslash before u", `{"text":"\\ud800"}`, line{Text: `\ud800`}},
		{"backslash and quote", `{"text":"\\\"","reply_to":1}`, line{Text: `\"`, ReplyTo: 1}},
		{"surrogate pair", `{"text":"\ud83d\ude00\uD83D\uDE00"}`, line{Text: "😀😀"}},
		{"replacement character itself", `{"text":"` + "\uFFFD" + `\ufffd"}`, line{Text: "\uFFFD\uFFFD"}},
		{"empty name", `{"":1}`, line{}},
		{"deepest", `{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, line{}},
		{"wide", `{"x":[` + strings.Repeat("{},[],", 1000) + `0]}`, line{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got line
			if err := Decode([]byte(tt.in), &got); err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Decode(%s)\n got %+v, %v\nwant %+v, nil", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestDecodeRefusals(t *testing.T) {
	tests := []struct {
		name, in string
		reason   string // a part of it
	}{
		{"nothing", "", "unexpected end"},
		{"white space", " \n", "unexpected end"},
		{"cut short", `{"text":"a`, "unexpected end"},
		{"byte order mark", "\uFEFF{}", "invalid character"},
		{"raw control character", "{\"text\":\"a\nb\"}", "invalid character"},
		{"comment", `{/**/}`, "invalid character"},
		{"trailing comma", `{"text":"a",}`, "invalid character"},
		{"single quotes", `{'text':'a'}`, "invalid character"},
		{"unknown escape", `{"text":"\x41"}`, "invalid character"},
		{"leading zero", `{"reply_to":01}`, "invalid character"},
		{"NaN", `{"reply_to":NaN}`, "invalid character"},
		{"trailing object", `{}{}`, "after top-level value"},
		{"trailing text", `{} x`, "after top-level value"},
		{"trailing NUL", "{}\x00", "after top-level value"},

		{"array", `[{"text":"a"}]`, "not an object"},
		{"string", `"{}"`, "not an object"},
		{"number", ` 1`, "not an object"},
		{"null", `null`, "not an object"},

		{"invalid UTF-8", "{\"text\":\"\xff\"}", "not UTF-8"},
		{"invalid UTF-8 in a name", "{\"\xc3\":1}", "not UTF-8"},
		{"encoded surrogate", "{\"text\":\"\xed\xa0\x80\"}", "not UTF-8"},

		{"lone high surrogate", `{"text":"\ud800"}`, "lone surrogate at byte 9"},
		{"lone low surrogate", `{"text":"ab\uDFFF"}`, "lone surrogate at byte 11"},
		{"high surrogate and a letter", `{"text":"\ud83d\u0041"}`, "lone surrogate"},
		{"high surrogate and text", `{"text":"\ud83dude00"}`, "lone surrogate"},
		{"high surrogate and an escape", `{"text":"\ud83d\\de00"}`, "lone surrogate"},
		{"two high surrogates", `{"text":"\ud83d\ud83d\ude00"}`, "lone surrogate"},
		{"pair in the wrong order", `{"text":"\ude00\ud83d"}`, "lone surrogate"},
		{"pair and half a pair", `{"text":"\ud83d\ude00\ud83d"}`, "lone surrogate"},
		{"surrogate in a name", `{"\ud800":1}`, "lone surrogate"},
		{"surrogate in an unknown member", `{"x":[{"y":"\ud800"}]}`, "lone surrogate"},

		{"name repeated", `{"text":"a","text":"b"}`, "name repeated at byte 12"},
		{"name repeated with the same value", `{"text":"a","text":"a"}`, "name repeated"},
		{"name repeated with space before the colon", "{\"text\":\"a\",\"text\" \n:\"b\"}", "name repeated"},
		{"name repeated by escape", `{"text":"a","te\u0078t":"b"}`, "name repeated"},
		{"name repeated by short escape", `{"a/b":1,"a\/b":2}`, "name repeated"},
		{"name repeated in another case", `{"text":"a","Text":"b"}`, "name repeated"},
		{"name repeated by escape in another case", `{"text":"a","te\u0058t":"b"}`, "name repeated"},
		{"name repeated with a long s", `{"users":1,"uſers":2}`, "name repeated"},
		{"name repeated with a kelvin sign", `{"kid":1,"\u212aid":2}`, "name repeated"},
		{"name repeated in greek", `{"ΣΑΣ":1,"σας":2}`, "name repeated"},
		{"empty name repeated", `{"":1,"":2}`, "name repeated"},
		{"unknown name repeated", `{"x":1,"x":2}`, "name repeated"},
		{"name repeated deep inside", `{"x":[[{"y":{"z":1,"z":2}}]]}`, "name repeated"},
		{"name repeated after an object", `{"x":{"a":1},"y":[{"a":1}],"x":2}`, "name repeated"},

		{"nested too deep", `{"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, "nested deeper than 32 at byte 36"},
		{"objects nested too deep", strings.Repeat(`{"x":`, 33) + "1" + strings.Repeat("}", 33), "nested deeper"},
		{"nesting bomb", `{"x":` + strings.Repeat("[", 4000) + strings.Repeat("]", 4000) + `}`, "nested deeper"},
		{"unclosed nesting bomb", strings.Repeat("[", 1<<20), "depth"},

		{"wrong type", `{"text":7}`, `member "text" has the wrong type`},
		{"fraction", `{"reply_to":1.5}`, `member "reply_to"`},
		{"exponent", `{"reply_to":1e3}`, `member "reply_to"`},
		{"beyond int64", `{"reply_to":9223372036854775808}`, `member "reply_to"`},
		{"beyond float64", `{"data":{"x":1e400}}`, `member "data`},
		{"refused by the type itself", `{"at":"yesterday"}`, "parsing time"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got line
			err := Decode([]byte(tt.in), &got)
			invalid, ok := errors.AsType[*InvalidError](err)
			if !ok || !errors.Is(err, ErrInvalid) {
				t.Fatalf("Decode(%.80q): got %v, want an InvalidError", tt.in, err)
			}
			if !strings.Contains(invalid.Reason, tt.reason) {
				t.Errorf("Decode(%.80q): got reason %q, want %q", tt.in, invalid.Reason, tt.reason)
			}
			if len(invalid.Reason) > 256 {
				t.Errorf("reason of %d bytes, want at most 256", len(invalid.Reason))
			}
		})
	}
}

// The names that we hold for repeated are exactly those that encoding/json
// would write into one field.
func TestNamesFoldAsInEncodingJSON(t *testing.T) {
	type target struct {
		V int `json:"Straße_kſK"`
	}
	for _, name := range []string{
		"Straße_kſK", "straße_ksk", "STRAßE_KSK", "STRAẞE_KSK", "strasse_ksk", "straße_\u212as\u212a", "Straße-ksk", "straße_ksk ",
	} {
		quoted, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		var v target
		if err := json.Unmarshal([]byte(`{`+string(quoted)+`:1}`), &v); err != nil {
			t.Fatal(err)
		}
		want := v.V == 1
		got := foldName(quoted) == foldName([]byte(`"Straße_kſK"`))
		if got != want {
			t.Errorf("%q taken for the field's name: got %t, want %t", name, got, want)
		}
	}
}

func TestDecodeIntoNoPointer(t *testing.T) {
	err := Decode([]byte(`{}`), line{})
	if _, ok := errors.AsType[*json.InvalidUnmarshalError](err); !ok || errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want encoding/json's InvalidUnmarshalError", err)
	}
}

// marshal is encoding/json without the escapes for HTML.
func marshal(t testing.TB, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"text":"안녕","reply_to":7}`, `{"te\u0078t":"a","Text":"b"}`, `{"text":"\ud83d\ude00\\"}`, `{"x":"\ud800"}`,
		`{"a":{"b":[1,-2.5e3,true,null,{"b":""}]},"b" : 1e400}`, "{\"\xff\":1}", `[]`, `{}{}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v map[string]any
		if err := Decode(data, &v); err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("Decode(%q): %v is none of ours", data, err)
			}
			return
		}
		again := marshal(t, v)
		var w map[string]any
		if err := Decode(again, &w); err != nil || !reflect.DeepEqual(v, w) {
			t.Errorf("Decode(%q) = %v; decoded again from %q: %v, %v", data, v, again, w, err)
		}
		// A name that we let pass twice would be in the map, and so here, but once.
		if n := countNames(t, data); n != countNames(t, again) {
			t.Errorf("%q has %d names, its encoding %q has not", data, n, again)
		}
	})
}

// countNames counts the names in all objects of data, repeated or not.
func countNames(t testing.TB, data []byte) int {
	t.Helper()
	type level struct {
		object bool
		tokens int // so far; every other one is a name
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	names, open := 0, []level{{}}
	for len(open) > 0 {
		token, err := dec.Token()
		if err != nil {
			break // the end
		}
		if token == json.Delim('}') || token == json.Delim(']') {
			open = open[:len(open)-1]
			continue
		}
		top := &open[len(open)-1]
		if top.object && top.tokens%2 == 0 {
			names++
		}
		top.tokens++
		if token == json.Delim('{') || token == json.Delim('[') {
			open = append(open, level{object: token == json.Delim('{')})
		}
	}
	return names
}
