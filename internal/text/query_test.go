package text

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestQuery(t *testing.T) {
	for q, want := range map[string][]string{
		"안녕":                     {"안녕"},
		"  Hello   안녕 hello\t":   {"hello", "안녕"},
		"\u1112\u1161\u11ab글":    {"한글"}, // typed on a Mac: NFD
		"STRASSE":                {"strasse"},
		"👍":                      {"👍"},
		`"x" OR y*`:              {`"x"`, "or", "y*"},
		strings.Repeat("가", 100): {strings.Repeat("가", 100)},
	} {
		got, err := Query(q)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q %v, want %q", q, got, err, want)
		}
	}
	var long *TooLongError
	if _, err := Query(strings.Repeat("가", 101)); !errors.As(err, &long) || long.Max != MaxQuery || long.Length != 101 {
		t.Errorf("101 code points: got %v, want TooLongError", err)
	}
	for _, q := range []string{"", "  ", "\u200b", "\x00"} {
		if _, err := Query(q); !errors.Is(err, ErrEmpty) {
			t.Errorf("%q: got %v, want ErrEmpty", q, err)
		}
	}
	if _, err := Query("\xff"); !errors.Is(err, ErrInvalid) {
		t.Errorf("not UTF-8: got %v, want ErrInvalid", err)
	}
}

func TestGrams(t *testing.T) {
	for folded, want := range map[string][]string{
		"":            nil,
		"네":           nil,
		"안녕":          {"00c54800b155"},
		"ab ab":       {"000061000062"},
		"가 나":         nil,
		"👍":           {"01f44d"},
		"a👍":          {"00006101f44d", "01f44d"},
		"\U0010ffff":  nil,
		"x\U0010fffd": {"00007810fffd"},
	} {
		if got := Grams(folded); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", folded, got, want)
		}
	}
}

func TestContainsAll(t *testing.T) {
	folded := Fold("오늘 방송 Straße!!")
	for want, words := range map[bool][][]string{
		true:  {{"방송"}, {"오늘", "방송"}, {"strasse"}, {"!!"}, {"늘"}, nil},
		false: {{"오늘방송"}, {"오늘", "내일"}, {"STRASSE"}},
	} {
		for _, w := range words {
			if got := ContainsAll(folded, w); got != want {
				t.Errorf("%q: got %v, want %v", w, got, want)
			}
		}
	}
}

var gram = regexp.MustCompile(`^([0-9a-f]{6}){1,2}$`)

// FuzzSearch holds a query against a text: nothing but hex reaches the index,
// and the index never hides a text that has the words.
func FuzzSearch(f *testing.F) {
	f.Add("안녕하세요 여러분", "안녕")
	f.Add("ㅋㅋㅋ 👨‍👩‍👧 ❤️ STRASSE", "👩 straße")
	f.Add(`a" OR b* NEAR(c)`, `" OR *`)
	f.Fuzz(func(t *testing.T, line, q string) {
		words, err := Query(q)
		if err != nil {
			return
		}
		grams := []string{}
		for _, w := range words {
			if w == "" || strings.ContainsFunc(w, unicode.IsSpace) || !utf8.ValidString(w) {
				t.Fatalf("%q: word %q", q, w)
			}
			grams = append(grams, Grams(w)...)
		}
		if len(words) == 0 || len(grams) > 8*MaxQuery {
			t.Fatalf("%q: %d words, %d grams", q, len(words), len(grams))
		}
		clean, err := Message(line)
		if err != nil {
			return
		}
		folded := Fold(clean)
		have := Grams(folded)
		for _, g := range grams {
			if !gram.MatchString(g) {
				t.Fatalf("%q: gram %q", q, g)
			}
			if !slices.Contains(have, g) && ContainsAll(folded, words) {
				t.Fatalf("%q contains %q, but not its gram %s", folded, words, g)
			}
		}
	})
}
