// Package text cleans and counts what people type: messages, nicknames and
// the quotes of replies. It knows nothing of chat.
//
// Lengths are in code points, because that is what a page can count without
// the tables that grapheme clusters need. Every function takes time linear in
// the length of its input, which the caller bounds, and is safe for concurrent
// use.
package text

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Bounds, in code points after cleaning. There is no lower bound but that
// something must be visible.
const (
	MaxMessage  = 500
	MaxNickname = 40
)

// maxStacked is how many combining marks may follow each other. Pointed and
// cantillated Hebrew, Vietnamese, Thai and the Indic scripts need two to four;
// more pile up over the neighbouring lines of a chat.
const maxStacked = 4

// What [Message] refuses, beside a [TooLongError].
var (
	// ErrInvalid means that the input is not UTF-8. Decoders refuse such bodies
	// before; this is the belt to their braces.
	ErrInvalid = errors.New("text: not valid UTF-8")

	// ErrEmpty means that cleaning left nothing that anybody could see.
	ErrEmpty = errors.New("text: nothing visible")

	// ErrBadCharacters means that marks are piled onto one character, as no
	// language does.
	ErrBadCharacters = errors.New("text: too many combining marks in a row")
)

// TooLongError refuses a text for its length after cleaning.
type TooLongError struct {
	Max    int // the bound, in code points
	Length int // what it would have been, in code points
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("text: %d code points, at most %d", e.Length, e.Max)
}

// Message returns s as it goes into the log, or why it may not:
// [ErrInvalid], [ErrEmpty], [ErrBadCharacters] or a *[TooLongError], the first
// that applies in this order.
//
// A tab or a line end (CR LF counts as one, so do U+0085, U+2028 and U+2029)
// becomes one space. Other control characters, bidi embeddings, overrides and
// isolates, and noncharacters are removed. The rest is brought to NFC and
// trimmed of Unicode white space. The result is valid UTF-8 of 1 to MaxMessage
// code points, and Message leaves it as it is.
//
// Private-use and unassigned code points stay. The former are on keyboards
// (the logo on a Mac's) and hurt nobody; refusing the latter would refuse each
// year's new emoji until this program is built with newer tables.
func Message(s string) (string, error) {
	s, err := clean(s)
	if err != nil {
		return "", err
	}
	if n := utf8.RuneCountInString(s); n > MaxMessage {
		return "", &TooLongError{Max: MaxMessage, Length: n}
	}
	return s, nil
}

// Nickname cleans s as [Message] does and cuts it to MaxNickname code points.
// Where nothing usable is left it returns fallback, the user's id, as it is.
func Nickname(s, fallback string) string {
	s, err := clean(s)
	if err != nil {
		return fallback
	}
	s = trimCut(firstRunes(s, MaxNickname))
	if !visible(s) { // what showed was behind the cut
		return fallback
	}
	return s
}

// Excerpt returns a quote of s, a text that is clean already: s itself if it
// has at most limit code points, else its beginning and "…", together at most
// limit code points. A limit below 1 gives "".
func Excerpt(s string, limit int) string {
	if limit < 1 {
		return ""
	}
	if len(firstRunes(s, limit)) == len(s) {
		return s
	}
	return trimCut(firstRunes(s, limit-1)) + "…"
}

// plain reports whether s is made of characters that cleaning leaves alone
// wherever they stand: printable ASCII, Hangul syllables and the jamo of the
// keyboard. That is nearly everything people type here, and saves most of the
// work.
func plain(s string) bool {
	for _, r := range s {
		switch {
		case ' ' <= r && r <= '~', '가' <= r && r <= '힣', 'ㄱ' <= r && r <= 'ㅣ':
		default:
			return false
		}
	}
	return true
}

// clean does all that messages and nicknames have in common.
func clean(s string) (string, error) {
	if plain(s) {
		if s = strings.Trim(s, " "); s == "" {
			return "", ErrEmpty
		}
		return s, nil
	}
	return cleanAny(s)
}

// cleanAny is clean for every text.
func cleanAny(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", ErrInvalid
	}
	s = strings.Map(mapRune, strings.ReplaceAll(s, "\r\n", "\n"))

	// Normalising comes after removing, which may bring a letter and its accent
	// together, and before counting marks, which it splits, joins and reorders.
	// Trimming last is safe: any part of an NFC text is NFC.
	nfc := norm.NFC.String(s)
	// After 30 marks or conjoining jamo in a row the library breaks the run with
	// a joiner of its own, so as to work in bounded memory. No language gets
	// there, and a text must not grow by what nobody typed.
	if strings.Count(nfc, norm.GraphemeJoiner) > strings.Count(s, norm.GraphemeJoiner) {
		return "", ErrBadCharacters
	}
	nfc = strings.TrimSpace(nfc)

	if !visible(nfc) {
		return "", ErrEmpty
	}
	if stacked(nfc) {
		return "", ErrBadCharacters
	}
	return nfc, nil
}

// mapRune is for [strings.Map]: what r becomes, -1 to remove it.
func mapRune(r rune) rune {
	switch {
	case r == '\t', r == '\n', r == '\r', r == '\u0085', r == '\u2028', r == '\u2029':
		return ' '
	case unicode.IsControl(r):
		return -1
	case '\u202a' <= r && r <= '\u202e', '\u2066' <= r && r <= '\u2069':
		// An override or an isolate left open turns the rest of the page around.
		return -1
	case '\ufdd0' <= r && r <= '\ufdef', r&0xfffe == 0xfffe:
		// Noncharacters: no keyboard types them and XML cannot carry some of them.
		return -1
	}
	return r
}

// visible reports whether s has anything to see.
func visible(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsSpace(r) && !ignorable(r) && !blank(r)
	})
}

// ignorable reports whether r takes no room where a font does as Unicode's
// Default_Ignorable_Code_Point says: format characters, variation selectors
// and fillers. The signs it leaves out are Arabic and Syriac number signs,
// which are format characters that show.
func ignorable(r rune) bool {
	if r < unicode.MaxLatin1 {
		return r == '\u00ad'
	}
	return unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point) &&
		!unicode.Is(unicode.Prepended_Concatenation_Mark, r)
}

// blank reports whether r is a symbol or mark drawn as nothing, which Unicode
// has no property for.
func blank(r rune) bool {
	switch r {
	case '\u2800', // Braille pattern blank
		'\U0001d159', // musical symbol null notehead
		'\U00016fe4': // Khitan small script filler
		return true
	}
	return false
}

// stacked reports whether more than maxStacked nonspacing or enclosing marks
// follow each other. Variation selectors are such marks and count. Joiners and
// other ignorable characters neither count nor end a run: with one after every
// fourth mark the pile would look the same. Spacing marks (Mc) end it, as they
// take room of their own.
func stacked(s string) bool {
	run := 0
	for _, r := range s {
		switch {
		case r >= '\u0300' && unicode.In(r, unicode.Mn, unicode.Me):
			if run++; run > maxStacked {
				return true
			}
		case run > 0 && !ignorable(r):
			run = 0
		}
	}
	return false
}

// firstRunes returns the first n code points of s, or s if it has no more.
func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// trimCut removes what a cut leaves at the end: white space, and joiners that
// would tie what is written next to it.
func trimCut(s string) string {
	const zwj = '\u200d'
	return strings.TrimRightFunc(s, func(r rune) bool { return r == zwj || unicode.IsSpace(r) })
}
