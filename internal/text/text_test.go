package text

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

func TestMessage(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"plain", "hello", "hello"},
		{"korean", "안녕하세요 여러분", "안녕하세요 여러분"},
		{"decomposed jamo", "\u1112\u1161\u11ab\u1100\u1173\u11af", "한글"},
		{"syllable and final", "하\u11ab", "한"},
		{"old hangul has no syllable to become", "\u1112\u119e\u11ab", "\u1112\u119e\u11ab"},
		{"compatibility jamo", "ㅋㅋㅋㅠㅠ", "ㅋㅋㅋㅠㅠ"},
		{"decomposed latin", "cafe\u0301", "café"},
		{"singletons", "\u212b \u2126", "\u00c5 \u03a9"},
		{"markup is text", `<b>&"\`, `<b>&"\`},
		{"emoji", "👍🏽", "👍🏽"},
		{"emoji family", "👨\u200d👩\u200d👧\u200d👦", "👨\u200d👩\u200d👧\u200d👦"},
		{"heart on fire", "❤\ufe0f\u200d🔥", "❤\ufe0f\u200d🔥"},
		{"keycap", "1\ufe0f\u20e3", "1\ufe0f\u20e3"},
		{"flag", "🇰🇷", "🇰🇷"},
		{"tagged flag", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"},
		{"emoji newer than our tables", "\U0001fae9", "\U0001fae9"},
		{"format characters that show", "\u0600\u070f", "\u0600\u070f"},
		{"private use", "\uf8ff", "\uf8ff"},

		{"tab", "a\tb", "a b"},
		{"newline", "a\nb", "a b"},
		{"cr lf is one line end", "a\r\nb", "a b"},
		{"two line ends", "a\r\n\r\nb\n\nc", "a  b  c"},
		{"cr", "a\rb", "a b"},
		{"cr cr lf", "a\r\r\nb", "a  b"},
		{"next line", "a\u0085b", "a b"},
		{"line and paragraph separator", "a\u2028b\u2029c", "a b c"},
		{"control characters", "a\x00b\x07c\x1b[31md\x7fe\u009bf\vg\fh", "abc[31mdefgh"},
		{"control between letter and accent", "e\x00\u0301", "é"},
		{"control between cr and lf", "a\r\x00\nb", "a  b"},
		{"bidi override", "abc\u202etxt.exe", "abctxt.exe"},
		{"bidi embeddings", "\u202aa\u202bb\u202cc\u202dd", "abcd"},
		{"bidi isolates", "\u2066a\u2067b\u2068c\u2069", "abc"},
		{"directional marks stay", "א\u200e!\u200fb", "א\u200e!\u200fb"},
		{"noncharacters", "a\ufdd0b\ufffec\U0010ffffd\uffff", "abcd"},
		{"replacement character is a character", "\ufffd", "\ufffd"},
		{"trimmed", " \t\u00a0\u3000hi there\u2003\u1680\r\n", "hi there"},
		{"trimmed before a mark", " \u0301a", "\u0301a"},
		{"filler beside a letter", "\u3164a", "\u3164a"},
		{"zero-width non-joiner", "می\u200cخواهم", "می\u200cخواهم"},

		{"four marks", "a\u0316\u0317\u0318\u0319", "a\u0316\u0317\u0318\u0319"},
		{"marks on each letter", strings.Repeat("x\u0316\u0317\u0318\u0319", 100), strings.Repeat("x\u0316\u0317\u0318\u0319", 100)},
		{"vietnamese", "Tie\u0302\u0301ng Vie\u0323\u0302t", "Tiếng Việt"},
		{"thai", "น้ำ ที่นี่", "น้ำ ที่นี่"},
		{"devanagari", "क्षत्रिय हिन्दीं", "क्षत्रिय हिन्दीं"},
		{"cantillated hebrew", "\u05e9\u05c1\u05bc\u05b8\u0591\u05dc", "\u05e9\u05b8\u05bc\u05c1\u0591\u05dc"},
		{"five marks of which two compose", "a\u0302\u0301\u0316\u0317\u0318", "\u1ea5\u0316\u0317\u0318"},
		{"spacing marks take room", "க\u0bcb\u0bcb\u0bcb\u0bcb\u0bcb\u0bcb", "க\u0bcb\u0bcb\u0bcb\u0bcb\u0bcb\u0bcb"},

		{"longest", strings.Repeat("가", MaxMessage), strings.Repeat("가", MaxMessage)},
		{"longest, decomposed", strings.Repeat("\u1100\u1161", MaxMessage), strings.Repeat("가", MaxMessage)},
		{"longest, untrimmed", strings.Repeat(" ", 500) + strings.Repeat("가", MaxMessage), strings.Repeat("가", MaxMessage)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Message(tt.in)
			if got != tt.want || err != nil {
				t.Errorf("Message(%+q)\n got %+q, %v\nwant %+q, nil", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestMessageRefusals(t *testing.T) {
	tests := []struct {
		name, in string
		want     error
	}{
		{"nothing", "", ErrEmpty},
		{"white space", " \t\r\n\u3000\u2028", ErrEmpty},
		{"controls", "\x00\x1b", ErrEmpty},
		{"bidi only", "\u202e\u2066", ErrEmpty},
		{"noncharacter only", "\ufffe", ErrEmpty},
		{"hangul filler", "\u3164", ErrEmpty},
		{"fillers", "\u115f \u1160 \uffa0", ErrEmpty},
		{"braille blank", "\u2800\u2800", ErrEmpty},
		{"null notehead", "\U0001d159", ErrEmpty},
		{"zero-width", "\u200b\u200c\u200d\ufeff\u2060", ErrEmpty},
		{"soft hyphen", "\u00ad", ErrEmpty},
		{"variation selectors", "\ufe0f\ufe0f\ufe0f\ufe0f\ufe0f\ufe0f\U000e0100", ErrEmpty},
		{"grapheme joiners", strings.Repeat("\u034f", 100), ErrEmpty},
		{"tags", "\U000e0061\U000e007f", ErrEmpty},
		{"unassigned ignorable", "\u2065\U000e0fff", ErrEmpty},

		{"five marks", "a\u0316\u0317\u0318\u0319\u031c", ErrBadCharacters},
		{"five marks on nothing", "\u0301\u0301\u0301\u0301\u0301", ErrBadCharacters},
		{"zalgo", "h\u0301\u0302\u0303\u0304\u0305\u0306i", ErrBadCharacters},
		{"enclosing marks", "a\u20dd\u20dd\u20dd\u20dd\u20dd", ErrBadCharacters},
		{"joiners between marks", "a\u0316\u200d\u0317\u200d\u0318\u200d\u0319\u200d\u031c", ErrBadCharacters},
		{"grapheme joiner between marks", "a\u0316\u0317\u034f\u0318\u0319", ErrBadCharacters},
		{"controls between marks", "a\u0316\u0317\x00\u0318\u0319\x00\u031c", ErrBadCharacters},
		{"variation selectors on a letter", "a\ufe0f\ufe0f\ufe0f\ufe0f\ufe0f", ErrBadCharacters},
		{"marks that decompose", "x\u0344\u0344\u0344", ErrBadCharacters},
		{"thousands of marks", "a" + strings.Repeat("\u0301", 4000), ErrBadCharacters},
		{"a tower of vowels", "\u1100" + strings.Repeat("\u1161", 40), ErrBadCharacters},
		{"a tower of tone marks", "가" + strings.Repeat("\u302e", 31), ErrBadCharacters},

		{"not UTF-8", "a\xff", ErrInvalid},
		{"an encoded surrogate", "\xed\xa0\x80", ErrInvalid},
		{"an overlong encoding", "\xc0\xaf", ErrInvalid},
		{"half a character", "\xea\xb0", ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Message(tt.in)
			if got != "" || !errors.Is(err, tt.want) {
				t.Errorf("Message(%+q) = %+q, %v; want \"\", %v", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestMessageTooLong(t *testing.T) {
	tests := []struct {
		name, in string
		want     int
	}{
		{"by one", strings.Repeat("가", MaxMessage+1), 501},
		{"counted after composition", strings.Repeat("\u1100\u1161\u11a8", 600), 600},
		{"counted after removal and trimming", " " + strings.Repeat("a\x00", 700) + " ", 700},
		{"emoji are not one", strings.Repeat("👨\u200d👩\u200d👧", 101), 505},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Message(tt.in)
			long, ok := errors.AsType[*TooLongError](err)
			if got != "" || !ok {
				t.Fatalf("Message = %+q, %v; want a TooLongError", got, err)
			}
			if long.Length != tt.want || long.Max != MaxMessage {
				t.Errorf("got length %d of %d, want %d of %d", long.Length, long.Max, tt.want, MaxMessage)
			}
		})
	}
}

func TestNickname(t *testing.T) {
	const id = "42"
	tests := []struct {
		name, in, want string
	}{
		{"plain", "하늘", "하늘"},
		{"cleaned", " \u1112\u1161\u202e\tsky\n", "하 sky"},
		{"longest", strings.Repeat("가", 40), strings.Repeat("가", 40)},
		{"cut", strings.Repeat("가", 41), strings.Repeat("가", 40)},
		{"cut at a space", strings.Repeat("가", 39) + " 나다", strings.Repeat("가", 39)},
		{"cut inside an emoji sequence", strings.Repeat("가", 38) + "👨\u200d👩", strings.Repeat("가", 38) + "👨"},
		{"joiner at the end", "하늘\u200d", "하늘"},
		{"joiners and spaces at the end", "하늘 \u200d \u200d", "하늘"},
		{"very long", strings.Repeat("가", 100_000), strings.Repeat("가", 40)},
		{"empty", "", id},
		{"invisible", "\u3164", id},
		{"visible behind the cut", strings.Repeat("\u3164", 40) + "a", id},
		{"zalgo", "a\u0316\u0317\u0318\u0319\u031c", id},
		{"zalgo behind the cut", strings.Repeat("가", 40) + "a\u0316\u0317\u0318\u0319\u031c", id},
		{"not UTF-8", "a\xff", id},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Nickname(tt.in, id); got != tt.want {
				t.Errorf("Nickname(%+q) = %+q, want %+q", tt.in, got, tt.want)
			}
		})
	}
}

func TestExcerpt(t *testing.T) {
	tests := []struct {
		name, in string
		limit    int
		want     string
	}{
		{"empty", "", 80, ""},
		{"shorter", "안녕", 80, "안녕"},
		{"exact", "안녕하세요", 5, "안녕하세요"},
		{"cut", "안녕하세요", 4, "안녕하…"},
		{"cut after a space", "안녕 하세요", 4, "안녕…"},
		{"cut inside an emoji sequence", "👨\u200d👩\u200d👧", 3, "👨…"},
		{"one", "안녕", 1, "…"},
		{"none", "안녕", 0, ""},
		{"negative", "안녕", -1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Excerpt(tt.in, tt.limit); got != tt.want {
				t.Errorf("Excerpt(%+q, %d) = %+q, want %+q", tt.in, tt.limit, got, tt.want)
			}
		})
	}
}

// checkClean fails unless s is what Message and Nickname promise of whatever
// they return. It looks at the code points in its own way.
func checkClean(t rapid.TB, s string, limit int) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%+q is not valid UTF-8", s)
	}
	if !norm.NFC.IsNormalString(s) {
		t.Errorf("%+q is not NFC", s)
	}
	if n := len([]rune(s)); n < 1 || n > limit {
		t.Errorf("%+q has %d code points, want 1 to %d", s, n, limit)
	}
	if strings.TrimSpace(s) != s {
		t.Errorf("%+q is not trimmed", s)
	}
	if i := strings.IndexFunc(s, func(r rune) bool {
		return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Noncharacter_Code_Point) ||
			unicode.Is(unicode.Bidi_Control, r) && r != '\u200e' && r != '\u200f' && r != '\u061c'
	}); i >= 0 {
		t.Errorf("%+q has a forbidden character at byte %d", s, i)
	}
}

// checkMessage fails unless Message does with s what it promises for all input.
func checkMessage(t rapid.TB, s string) {
	t.Helper()
	got, err := Message(s)
	if err != nil {
		if got != "" {
			t.Errorf("Message(%+q) = %+q beside the error %v", s, got, err)
		}
		_, tooLong := errors.AsType[*TooLongError](err)
		if !tooLong && !errors.Is(err, ErrEmpty) && !errors.Is(err, ErrBadCharacters) && !errors.Is(err, ErrInvalid) {
			t.Errorf("Message(%+q): %v is none of ours", s, err)
		}
		if errors.Is(err, ErrInvalid) == utf8.ValidString(s) {
			t.Errorf("Message(%+q): %v", s, err)
		}
		return
	}
	checkClean(t, got, MaxMessage)
	if again, err := Message(got); again != got || err != nil {
		t.Errorf("Message(Message(%+q))\n got %+q, %v\nwant %+q, nil", s, again, err, got)
	}
}

// typed draws texts that are rich in what the cleaning has to care about, in
// runs short and long enough to meet every bound.
func typed() *rapid.Generator[string] {
	r := rapid.OneOf(
		rapid.SampledFrom([]rune("a 가하ㅋ\t\r\n\v\u0085\u2028\x00\u00ad")),
		rapid.SampledFrom([]rune("\u1100\u1112\u1161\u1175\u11a7\u11a8\u11ab\u302e\u3164\u115f\u1160\uffa0")),
		rapid.SampledFrom([]rune("\u0300\u0301\u0302\u0316\u0327\u0338\u0344\u0345\u034f\u05b0\u05c1\u0e49\u094d\u093f\u0f73\u0f81")),
		rapid.SampledFrom([]rune("\u200b\u200c\u200d\u200e\ufe0f\u202e\u2066\u2069\ufdd0\uffff\ufeff")),
		rapid.SampledFrom([]rune("👨👩🏽🇰🇷❤\u20e3\u2800\U000e0067\U0001d15e\U0001d160\ufb2c\u0958\u2126\u2001\u1fed\u09c7\u09be\u0bd7")),
		rapid.RuneFrom(nil, unicode.Mn, unicode.Mc, unicode.Me, unicode.Cf),
		rapid.Rune(),
	)
	run := rapid.Custom(func(t *rapid.T) string {
		n := rapid.OneOf(rapid.IntRange(1, 2), rapid.IntRange(3, 6), rapid.IntRange(27, 34)).Draw(t, "times")
		return strings.Repeat(string(r.Draw(t, "rune")), n)
	})
	return rapid.Map(rapid.SliceOfN(run, 0, 12), func(runs []string) string { return strings.Join(runs, "") })
}

func TestMessageProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { checkMessage(rt, typed().Draw(rt, "s")) })
}

func TestNicknameProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := typed().Draw(rt, "s")
		const id = "user-42"
		got := Nickname(s, id)
		checkClean(rt, got, MaxNickname)
		if strings.HasSuffix(got, "\u200d") {
			rt.Errorf("Nickname(%+q) = %+q ends in a joiner", s, got)
		}
		if again := Nickname(got, id); again != got {
			rt.Errorf("Nickname(Nickname(%+q)) = %+q, want %+q", s, again, got)
		}
	})
}

func TestExcerptProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, err := Message(typed().Draw(rt, "s"))
		limit := rapid.IntRange(0, 100).Draw(rt, "limit")
		got := Excerpt(s, limit)
		if err != nil {
			return
		}
		if n := utf8.RuneCountInString(got); n > limit {
			rt.Errorf("Excerpt(%+q, %d) = %+q has %d code points", s, limit, got, n)
		}
		if begin, cut := strings.CutSuffix(got, "…"); got != s && (!cut && limit > 0 || !strings.HasPrefix(s, begin)) {
			rt.Errorf("Excerpt(%+q, %d) = %+q is not its beginning", s, limit, got)
		}
		if !norm.NFC.IsNormalString(got) {
			rt.Errorf("Excerpt(%+q, %d) = %+q is not NFC", s, limit, got)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{
		"안녕하세요", "\u1112\u1161\u11ab", "❤\ufe0f\u200d🔥", "a\r\n\tb\u202e", "\u3164", "\xff", " \u0301",
		"a" + strings.Repeat("\u0301", 31), "\u1100" + strings.Repeat("\u1161", 31), strings.Repeat("가", 501),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkMessage(t, s) })
}

func BenchmarkMessage(b *testing.B) {
	composed := strings.Repeat("안녕하세요 여러분!", 10)
	for _, bb := range []struct{ name, in string }{
		{"korean100", composed},
		{"korean100-decomposed", norm.NFD.String(composed)},
		{"marks-8KiB", strings.Repeat("\u0301", 4<<10)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bb.in)))
			for b.Loop() {
				Message(bb.in)
			}
		})
	}
}

// What is plain comes out as the long way would have it, and nothing else is
// taken for plain: every code point on its own, between others, and at the ends.
func TestPlainTextTakesTheShortWay(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		for _, s := range []string{string(r), "가" + string(r) + "힣", " " + string(r) + string(r) + " "} {
			if !plain(s) {
				continue
			}
			got, gotErr := clean(s)
			want, wantErr := cleanAny(s)
			if got != want || gotErr != wantErr {
				t.Fatalf("%+q: got %+q %v, want %+q %v", s, got, gotErr, want, wantErr)
			}
		}
	}
	for _, s := range []string{"안녕하세요 ㅋㅋㅋ ㅠㅠ hello, 100%!", "~"} {
		if !plain(s) {
			t.Errorf("%q is not taken for plain", s)
		}
	}
}
