package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hanmadi/hanmadi/internal/spec/spectest"
)

// frames are frames of either side with their bytes, which clients written by
// other people rely on.
var frames = []struct {
	frame Frame
	bytes string
}{
	{Start{Token: "eyJ.x.y"}, `{"type":"start","token":"eyJ.x.y"}`},
	{Start{Token: "t", After: new(int64(1041)), Log: "01JA", Role: RoleStandby},
		`{"type":"start","token":"t","after":1041,"log":"01JA","role":"standby"}`},
	{Start{Token: "t", After: new(int64(0))}, `{"type":"start","token":"t","after":0}`},
	{Relayed{Seq: 1042}, `{"type":"relayed","seq":1042}`},
	{Relayed{Seq: MaxSeq}, `{"type":"relayed","seq":9007199254740991}`},
	{Token{Token: "t"}, `{"type":"token","token":"t"}`},
	{Heartbeat{}, `{"type":"heartbeat"}`},
	{Ping{}, `ping`},
	{Pong{}, `pong`},
	{Welcome{Room: "7", Log: "01JA", Head: 1042, Session: "s", HeartbeatS: 25},
		`{"type":"welcome","room":"7","log":"01JA","head":1042,"session":"s","heartbeat_s":25}`},
	{Events{Payload: `{"events":[{"text":"<b>안녕 & \"\\"}]}`, KID: "k1", Sig: "c2ln"},
		`{"type":"events","payload":"{\"events\":[{\"text\":\"<b>안녕 & \\\"\\\\\"}]}","kid":"k1","sig":"c2ln"}`},
	{Events{Payload: "\x00\a\b\t\n\v\f\r\x1f\x7f/\u2028\uFFFD"},
		`{"type":"events","payload":"\u0000\u0007\b\t\n\u000b\f\r\u001f` + "\x7f/\u2028\uFFFD" + `","kid":"","sig":""}`},
	{Skipped{To: 5000}, `{"type":"skipped","to":5000}`},
	{Error{Code: "token.expired", Detail: "로그인이 만료되었습니다."}, `{"type":"error","code":"token.expired","detail":"로그인이 만료되었습니다."}`},
	{Error{Code: "overloaded", RetryAfterS: 3}, `{"type":"error","code":"overloaded","detail":"","retry_after_s":3}`},
}

func TestEncode(t *testing.T) {
	for _, tt := range frames {
		t.Run(fmt.Sprintf("%T", tt.frame), func(t *testing.T) {
			if got := string(Encode(tt.frame)); got != tt.bytes {
				t.Errorf("Encode(%#v)\n got %s\nwant %s", tt.frame, got, tt.bytes)
			}
			if got := decodeSame(t, tt.frame, []byte(tt.bytes)); !reflect.DeepEqual(got, tt.frame) {
				t.Errorf("decoded %s\n got %#v\nwant %#v", tt.bytes, got, tt.frame)
			}
		})
	}
}

// decodeSame decodes data on every side that may receive f.
func decodeSame(t rapid.TB, f Frame, data []byte) Frame {
	t.Helper()
	var got Frame
	if _, ok := f.(ClientFrame); ok {
		c, err := DecodeClient(data)
		if err != nil {
			t.Errorf("DecodeClient(%.200q): %v", data, err)
		}
		got = c
	}
	if _, ok := f.(ServerFrame); ok {
		s, err := DecodeServer(data)
		if err != nil {
			t.Errorf("DecodeServer(%.200q): %v", data, err)
		}
		got = s
	}
	return got
}

func TestEncodeInvalidUTF8(t *testing.T) {
	got := string(Encode(Token{Token: "a\xff\xfeb"}))
	if want := `{"type":"token","token":"a` + "\uFFFD" + `b"}`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDecodeClient(t *testing.T) {
	tests := []struct {
		name, in string
		want     ClientFrame
	}{
		{"type anywhere", `{"seq":1,"type":"relayed"}`, Relayed{Seq: 1}},
		{"unknown members", `{"type":"heartbeat","seq":"x","v":[{}]}`, Heartbeat{}},
		{"start without a token", `{"type":"start"}`, Start{}},
		{"null is absent", `{"type":"start","token":null,"after":null,"log":null,"role":null}`, Start{}},
		{"escaped type", `{"type":"\u0073tart","token":"t"}`, Start{Token: "t"}},
		{"greatest seq", `{"type":"start","after":9007199254740991}`, Start{After: new(int64(MaxSeq))}},
		{"minus zero", `{"type":"relayed","seq":-0}`, Relayed{}},
		{"longest token", `{"type":"token","token":"` + strings.Repeat("t", 4096) + `"}`, Token{Token: strings.Repeat("t", 4096)}},
		{"longest log", `{"type":"start","log":"` + strings.Repeat("0", 64) + `"}`, Start{Log: strings.Repeat("0", 64)}},
		{"longest frame", pad(`{"type":"heartbeat"}`, 8<<10), Heartbeat{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeClient([]byte(tt.in))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("DecodeClient(%.100q)\n got %#v, %v\nwant %#v, nil", tt.in, got, err, tt.want)
			}
			spectest.Frame(t, "/v1/presenter", spectest.Client, []byte(tt.in))
		})
	}
}

func TestDecodeClientRefusals(t *testing.T) {
	tests := []struct {
		name, in string
		want     error
	}{
		{"nothing", ``, ErrInvalid},
		{"pong", `pong`, ErrInvalid},
		{"ping in capitals", `PING`, ErrInvalid},
		{"ping with a line end", "ping\n", ErrInvalid},
		{"ping as JSON", `"ping"`, ErrInvalid},
		{"array", `[{"type":"heartbeat"}]`, ErrInvalid},
		{"two frames", `{"type":"heartbeat"}{"type":"heartbeat"}`, ErrInvalid},
		{"type twice", `{"type":"heartbeat","type":"start"}`, ErrInvalid},
		{"type twice by case", `{"type":"heartbeat","TYPE":"start"}`, ErrInvalid},
		{"type is a number", `{"type":1}`, ErrInvalid},
		{"lone surrogate", `{"type":"token","token":"\ud800"}`, ErrInvalid},
		{"nested too deep", `{"type":"heartbeat","x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, ErrInvalid},
		{"one byte too long", pad(`{"type":"heartbeat"}`, 8<<10+1), ErrInvalid},

		{"no type", `{}`, ErrUnknownType},
		{"null type", `{"type":null}`, ErrUnknownType},
		{"ping as a type", `{"type":"ping"}`, ErrUnknownType},
		{"type in capitals", `{"type":"Start"}`, ErrUnknownType},
		{"a server's frame", `{"type":"welcome"}`, ErrUnknownType},
		{"a frame of the future", `{"type":"pause"}`, ErrUnknownType},

		{"seq missing", `{"type":"relayed"}`, ErrInvalid},
		{"seq null", `{"type":"relayed","seq":null}`, ErrInvalid},
		{"seq negative", `{"type":"relayed","seq":-1}`, ErrInvalid},
		{"seq a string", `{"type":"relayed","seq":"1"}`, ErrInvalid},
		{"seq a fraction", `{"type":"relayed","seq":1.0}`, ErrInvalid},
		{"seq with an exponent", `{"type":"relayed","seq":1e3}`, ErrInvalid},
		{"seq beyond JavaScript", `{"type":"relayed","seq":9007199254740992}`, ErrInvalid},
		{"seq beyond int64", `{"type":"relayed","seq":18446744073709551617}`, ErrInvalid},
		{"seq beyond float64", `{"type":"relayed","seq":1e400}`, ErrInvalid},
		{"seq of a thousand digits", `{"type":"relayed","seq":` + strings.Repeat("9", 1000) + `}`, ErrInvalid},
		{"after negative", `{"type":"start","token":"t","after":-1}`, ErrInvalid},
		{"after a string", `{"type":"start","token":"t","after":"1"}`, ErrInvalid},
		{"after a fraction", `{"type":"start","token":"t","after":0.5}`, ErrInvalid},
		{"after beyond JavaScript", `{"type":"start","token":"t","after":9007199254740992}`, ErrInvalid},
		{"token a number", `{"type":"start","token":1}`, ErrInvalid},
		{"start's token too long", `{"type":"start","token":"` + strings.Repeat("t", 4097) + `"}`, ErrInvalid},
		{"token too long", `{"type":"token","token":"` + strings.Repeat("t", 4097) + `"}`, ErrInvalid},
		{"log too long", `{"type":"start","log":"` + strings.Repeat("0", 65) + `"}`, ErrInvalid},
		{"unknown role", `{"type":"start","role":"main"}`, ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeClient([]byte(tt.in))
			if got != nil || !errors.Is(err, tt.want) {
				t.Errorf("DecodeClient(%.100q) = %#v, %v; want nil, %v", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestDecodeServerRefusals(t *testing.T) {
	welcome := func(head, heartbeat string) string {
		return `{"type":"welcome","room":"7","log":"l","session":"s","head":` + head + `,"heartbeat_s":` + heartbeat + `}`
	}
	tests := []struct {
		name, in string
		want     error
	}{
		{"ping", `ping`, ErrInvalid},
		{"not JSON", `<html>`, ErrInvalid},
		{"a client's frame", `{"type":"start","token":"t"}`, ErrUnknownType},
		{"a frame of the future", `{"type":"` + strings.Repeat("x", 60_000) + `"}`, ErrUnknownType},
		{"one byte too long", pad(`{"type":"heartbeat"}`, 64<<10+1), ErrInvalid},
		{"head missing", `{"type":"welcome","heartbeat_s":25}`, ErrInvalid},
		{"head negative", welcome("-1", "25"), ErrInvalid},
		{"head beyond JavaScript", welcome("9007199254740992", "25"), ErrInvalid},
		{"heartbeat missing", `{"type":"welcome","head":0}`, ErrInvalid},
		{"heartbeat zero", welcome("0", "0"), ErrInvalid},
		{"heartbeat negative", welcome("0", "-25"), ErrInvalid},
		{"heartbeat beyond a Duration", welcome("0", "9223372036854775807"), ErrInvalid},
		{"heartbeat a fraction", welcome("0", "2.5"), ErrInvalid},
		{"payload an object", `{"type":"events","payload":{},"kid":"k","sig":"s"}`, ErrInvalid},
		{"to missing", `{"type":"skipped"}`, ErrInvalid},
		{"to a string", `{"type":"skipped","to":"5000"}`, ErrInvalid},
		{"retry negative", `{"type":"error","retry_after_s":-1}`, ErrInvalid},
		{"retry beyond a Duration", `{"type":"error","retry_after_s":2147483648}`, ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeServer([]byte(tt.in))
			if got != nil || !errors.Is(err, tt.want) {
				t.Errorf("DecodeServer(%.100q) = %#v, %v; want nil, %v", tt.in, got, err, tt.want)
			}
			if err != nil && len(err.Error()) > 256 {
				t.Errorf("error of %d bytes, want at most 256", len(err.Error()))
			}
		})
	}
}

// pad brings a frame to n bytes with white space.
func pad(frame string, n int) string { return frame + strings.Repeat(" ", n-len(frame)) }

// anyFrame draws frames that keep to their bounds.
func anyFrame() *rapid.Generator[Frame] {
	str := rapid.String()
	seq := rapid.Int64Range(0, MaxSeq)
	return rapid.OneOf(
		rapid.Custom(func(t *rapid.T) Frame {
			return Start{
				Token: str.Draw(t, "token"),
				After: rapid.Ptr(seq, true).Draw(t, "after"),
				Log:   rapid.StringN(0, 16, MaxLogID).Draw(t, "log"),
				Role:  rapid.SampledFrom([]string{"", RoleStandby}).Draw(t, "role"),
			}
		}),
		rapid.Custom(func(t *rapid.T) Frame { return Relayed{Seq: seq.Draw(t, "seq")} }),
		rapid.Custom(func(t *rapid.T) Frame { return Token{Token: str.Draw(t, "token")} }),
		rapid.SampledFrom([]Frame{Heartbeat{}, Ping{}, Pong{}}),
		rapid.Custom(func(t *rapid.T) Frame {
			return Welcome{
				Room: str.Draw(t, "room"), Log: str.Draw(t, "log"), Head: seq.Draw(t, "head"), Session: str.Draw(t, "session"),
				HeartbeatS: rapid.IntRange(1, 3600).Draw(t, "heartbeat_s"),
			}
		}),
		rapid.Custom(func(t *rapid.T) Frame {
			return Events{Payload: str.Draw(t, "payload"), KID: str.Draw(t, "kid"), Sig: str.Draw(t, "sig")}
		}),
		rapid.Custom(func(t *rapid.T) Frame { return Skipped{To: seq.Draw(t, "to")} }),
		rapid.Custom(func(t *rapid.T) Frame {
			return Error{
				Code: str.Draw(t, "code"), Detail: str.Draw(t, "detail"),
				RetryAfterS: rapid.IntRange(0, 3600).Draw(t, "retry_after_s"),
			}
		}),
	)
}

func TestFramesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyFrame().Draw(t, "frame")
		data := Encode(want)
		if got := decodeSame(t, want, data); !reflect.DeepEqual(got, want) {
			t.Errorf("from %q\n got %#v\nwant %#v", data, got, want)
		}
		_, ping := want.(Ping)
		_, pong := want.(Pong)
		if !ping && !pong && !bytes.HasPrefix(data, []byte(`{"type":"`)) {
			t.Errorf("%q does not begin with its type", data)
		}
	})
}

func TestLengthsAreExact(t *testing.T) {
	text := rapid.OneOf(
		rapid.String(),
		rapid.StringOf(rapid.RuneFrom([]rune("\x00\b\t\n\f\r\x1f \"\\/<>&\x7f\u2028\uFFFD가😀"))),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
	)
	rapid.Check(t, func(t *rapid.T) {
		f := Events{Payload: text.Draw(t, "payload"), KID: text.Draw(t, "kid"), Sig: text.Draw(t, "sig")}
		data := Encode(f)
		if got, want := EventsFrameLen(EscapedLen([]byte(f.Payload)), f.KID, f.Sig), len(data); got != want {
			t.Errorf("EventsFrameLen = %d, want %d for %q", got, want, data)
		}
		// Another encoder's reading of the same bytes, so that a string that we
		// measure and write wrong in the same way does not pass.
		var back struct{ Payload string }
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		if want := strings.ToValidUTF8(f.Payload, "\uFFFD"); back.Payload != want {
			t.Errorf("payload of %q\n got %q\nwant %q", data, back.Payload, want)
		}
	})
}

func TestEscapedLenAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole, sum := "", 0
		for _, part := range rapid.SliceOf(rapid.String()).Draw(t, "parts") {
			whole += part
			sum += EscapedLen([]byte(part))
		}
		if got := EscapedLen([]byte(whole)); got != sum {
			t.Errorf("EscapedLen(%q) = %d, want %d, the sum of its parts", whole, got, sum)
		}
	})
}

func TestCloseCodes(t *testing.T) {
	named := map[CloseCode]string{
		4001: "draining", 4002: "too slow", 4003: "silent", 4004: "internal", 4005: "token expired", 4006: "too many attempts",
		4500: "replaced", 4501: "bad token", 4502: "broadcast ended", 4503: "forbidden", 4504: "protocol",
	}
	for code := range CloseCode(5100) {
		want, ok := named[code]
		if !ok {
			want = fmt.Sprintf("close code %d", uint16(code))
		}
		if got := code.String(); got != want || len(got) > 32 {
			t.Errorf("CloseCode(%d).String() = %q, want %q", uint16(code), got, want)
		}
		if got, want := code.Retry(), code/500 != 9; got != want {
			t.Errorf("CloseCode(%d).Retry() = %t, want %t", uint16(code), got, want)
		}
	}
}

func FuzzDecodeClient(f *testing.F) {
	addFrames(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := DecodeClient(data)
		checkDecoded(t, data, frame, err, MaxClientFrame, DecodeClient)
	})
}

func FuzzDecodeServer(f *testing.F) {
	addFrames(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := DecodeServer(data)
		checkDecoded(t, data, frame, err, MaxServerFrame, DecodeServer)
	})
}

func addFrames(f *testing.F) {
	for _, tt := range frames {
		f.Add([]byte(tt.bytes))
	}
	for _, s := range []string{
		`{"type":"relayed","seq":1e400}`, `{"type":"relayed","seq":9007199254740992}`, `{"type":"start","Type":"token"}`, `{"type":"x"}`,
	} {
		f.Add([]byte(s))
	}
}

// checkDecoded fails unless frame comes back from its encoding, or err is one
// of ours.
func checkDecoded[F Frame](t *testing.T, data []byte, frame F, err error, limit int, decode func([]byte) (F, error)) {
	t.Helper()
	if err != nil {
		if any(frame) != nil || !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnknownType) {
			t.Errorf("decoded %q: %#v, %v; want nil and an error of ours", data, frame, err)
		}
		return
	}
	again := Encode(frame)
	if len(again) > limit {
		return
	}
	if got, err := decode(again); err != nil || !reflect.DeepEqual(got, frame) {
		t.Errorf("decoded %q: %#v\nits encoding %q: %#v, %v", data, frame, again, got, err)
	}
}

func BenchmarkDecodeBody(b *testing.B) {
	data := []byte(`{"text":"안녕하세요 여러분! 오늘 방송 정말 재미있어요","reply_to":1040}`)
	b.ReportAllocs()
	for b.Loop() {
		var v line
		if err := Decode(data, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeEvents(b *testing.B) {
	event := `{"seq":1042,"id":"01JD","at":"2026-11-22T10:00:00.123Z","kind":"message","user":{"id":"42","nickname":"하늘"},"text":"안녕하세요"},`
	f := Events{Payload: strings.Repeat(event, 80), KID: "k1", Sig: strings.Repeat("s", 86)}
	b.SetBytes(int64(len(f.Payload)))
	b.ReportAllocs()
	for b.Loop() {
		Encode(f)
	}
}

func BenchmarkEscapedLen(b *testing.B) {
	data := []byte(strings.Repeat(`{"seq":1042,"text":"안녕하세요"},`, 300))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		EscapedLen(data)
	}
}
