package text

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// MaxQuery bounds what one can look for, in code points.
const MaxQuery = 100

// Fold makes texts that differ only in case the same, in NFC again. It is how
// lines and what is looked for in them are compared.
func Fold(s string) string {
	return norm.NFC.String(cases.Fold().String(s)) // a Caser has state and cannot be shared
}

// Query cleans what somebody looks for as [Message] does, and gives its words,
// folded, each once: at least one. Its errors are those of Message.
func Query(s string) ([]string, error) {
	if n := utf8.RuneCountInString(s); n > MaxQuery {
		return nil, &TooLongError{Max: MaxQuery, Length: n}
	}
	clean, err := Message(s)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(Fold(clean))
	slices.Sort(words)
	return slices.Compact(words), nil
}

// ContainsAll reports whether a folded text has every one of the words in it.
func ContainsAll(folded string, words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(folded, word) })
}

// Grams are what a folded text is indexed by, in hex and each once: every two
// code points that stand side by side in a word, and every symbol (which most
// emoji are) by itself. A text that contains a word has all grams of the word;
// the reverse need not be.
//
// The tokenizers that come with SQLite do not fit. trigram finds nothing
// shorter than three code points, and most Korean words have two. unicode61
// drops what is neither letter nor digit, so emoji and "!!" are gone, and finds
// whole words only, to which Korean attaches its particles. Hex passes any
// tokenizer as it is, and means nothing to a query language.
func Grams(folded string) []string {
	var all []string
	last := rune(-1) // of the word so far
	for _, r := range folded {
		if unicode.IsSpace(r) {
			last = -1
			continue
		}
		if last >= 0 {
			all = append(all, hex(last, r))
		}
		if unicode.Is(unicode.So, r) {
			all = append(all, hex(r))
		}
		last = r
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// GramsVersion changes when [Grams] gives something else for a text; an index
// of another version is of no use.
const GramsVersion = 1

// hex writes code points with six digits each.
func hex(runes ...rune) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 12)
	for _, r := range runes {
		for shift := 20; shift >= 0; shift -= 4 {
			b = append(b, digits[r>>shift&0xf])
		}
	}
	return string(b)
}
