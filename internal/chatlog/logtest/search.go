package logtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
)

// Searchable is a log that can be searched.
type Searchable interface {
	chat.Log
	chat.Searcher
}

// RunSearch holds a searcher against its contract. open makes an empty log for
// each test and closes it with t.Cleanup.
func RunSearch(t *testing.T, open func(t *testing.T) Searchable) {
	t.Helper()
	tests := map[string]func(*testing.T, Searchable){
		"words wherever they stand":           wordsAnywhere,
		"the text decides, not its parts":     textDecides,
		"only lines, of the room, in order":   onlyLinesOfTheRoom,
		"pages give every line once":          searchPages,
		"what was just said is found":         justSaid,
		"a long way back is gone in steps":    longWayBack,
		"what looks like a query is a text":   queriesAreTexts,
		"a room without lines has none":       nothingToFind,
		"a room whose name begins with other": prefixedRooms,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func words(t *testing.T, q string) []string {
	t.Helper()
	words, err := text.Query(q)
	if err != nil {
		t.Fatalf("query %q: %v", q, err)
	}
	return words
}

// searchAll follows next to the end and gives the seqs found, in order.
func searchAll(t *testing.T, s Searchable, room, q string, limit int) (seqs []int64) {
	t.Helper()
	before := int64(0)
	for range 1000 {
		rows, next, err := s.Search(t.Context(), room, words(t, q), before, limit)
		if err != nil {
			t.Fatalf("search %q before %d: %v", q, before, err)
		}
		page := make([]int64, len(rows))
		for i, row := range rows {
			page[i] = row.Seq
			if row.Room != room || before > 0 && row.Seq >= before || next > row.Seq {
				t.Fatalf("search %q in %s before %d: got seq %d of %s, with next %d", q, room, before, row.Seq, row.Room, next)
			}
		}
		if len(rows) > limit || !slices.IsSorted(page) {
			t.Fatalf("search %q, at most %d: got %v", q, limit, page)
		}
		seqs = append(page, seqs...)
		if next == 0 {
			return seqs
		}
		if before > 0 && next >= before {
			t.Fatalf("search %q before %d: next %d does not go on", q, before, next)
		}
		before = next
	}
	t.Fatalf("search %q comes to no end", q)
	return nil
}

func wantFound(t *testing.T, s Searchable, room, q string, want ...int64) {
	t.Helper()
	if got := searchAll(t, s, room, q, 50); !slices.Equal(got, want) {
		t.Errorf("search %q in room %s: got %v, want %v", q, room, got, want)
	}
}

// say appends lines to a room that has none yet.
func say(t *testing.T, s Searchable, room string, texts ...string) {
	t.Helper()
	rows := make([]chat.Row, len(texts))
	for i, said := range texts {
		rows[i] = Line(fmt.Sprintf("%s-%05d", room, i), said)
	}
	mustAppend(t, s, room, 0, rows...)
}

func wordsAnywhere(t *testing.T, s Searchable) {
	say(t, s, "7", "처음", "안녕하세요 여러분", "오늘방송재밌네요", "네", "ㅋㅋㅋㅋ", "Hello World!!", "Straße", "👍", "좋아요❤️", "우리 👨‍👩‍👧 가족",
		"1,000원 (50% 할인)", "ÅNGSTRÖM", "👍🏽", "がんばれ")
	for _, c := range []struct {
		q    string
		want []int64
	}{
		{"안녕", []int64{2}}, {"하세", []int64{2}}, {"여러분 안녕", []int64{2}}, {"여러분 안녕하세요 녕하", []int64{2}}, {"안녕 방송", nil},
		{"방송", []int64{3}}, {"재밌네", []int64{3}}, {"네", []int64{3, 4}}, {"ㅋㅋ", []int64{5}}, {"ㅋ", []int64{5}}, {"ㅋㅋㅋㅋㅋ", nil},
		{"hello", []int64{6}}, {"WORLD", []int64{6}}, {"!!", []int64{6}}, {"lo wo", []int64{6}}, {"lo!", nil}, {"STRASSE", []int64{7}}, {"straße", []int64{7}},
		{"👍", []int64{8, 13}}, {"👍🏽", []int64{13}}, {"❤️", []int64{9}}, {"❤", []int64{9}}, {"👩", []int64{10}}, {"👨‍👩‍👧", []int64{10}}, {"👨‍👩‍👦", nil},
		{"1,000", []int64{11}}, {"50%", []int64{11}}, {"(50%", []int64{11}}, {"ångström", []int64{12}}, {"a\u030angstro\u0308m", []int64{12}}, {"んば", []int64{14}}, {"없는 말", nil},
	} {
		wantFound(t, s, "7", c.q, c.want...)
	}
}

func textDecides(t *testing.T, s Searchable) {
	say(t, s, "7", "나다가나", "가나다", "가 나다", "나다 가나", "방송 오늘", "오늘방송")
	wantFound(t, s, "7", "가나다", 2)
	wantFound(t, s, "7", "오늘방송", 6)
	wantFound(t, s, "7", "방송 오늘", 5, 6)
}

func onlyLinesOfTheRoom(t *testing.T, s Searchable) {
	titled := broadcast("s", chat.BroadcastStarted)
	titled.Details.Title, titled.User.Nickname = "안녕 방송", "안녕"
	line, other := Line("a", "안녕 하나"), Line("b", "다른 말")
	other.User.Nickname, other.Details.Reply = "안녕", &chat.Reply{Seq: 2, Nickname: "안녕", Text: "안녕"}
	mustAppend(t, s, "7", 0, titled, line, other, Line("c", "둘 안녕"))
	say(t, s, "8", "안녕 옆방")
	wantFound(t, s, "7", "안녕", 2, 4)
	rows, _, err := s.Search(t.Context(), "7", words(t, "안녕"), 0, 50)
	if err != nil || len(rows) != 2 || rows[0].Text != line.Text || rows[0].User != line.User || !rows[0].At.Equal(line.At) {
		t.Errorf("a row that is found is whole: got %+v %v", rows, err)
	}
}

func searchPages(t *testing.T, s Searchable) {
	texts := make([]string, 60)
	var want []int64
	for i := range texts {
		if texts[i] = fmt.Sprint("다른 말 ", i); i%3 == 0 {
			texts[i] = fmt.Sprint("찾는 말 ", i)
			want = append(want, int64(i+1))
		}
	}
	say(t, s, "7", texts...)
	for _, limit := range []int{1, 7, 20, 200} {
		if got := searchAll(t, s, "7", "찾는", limit); !slices.Equal(got, want) {
			t.Errorf("pages of %d: got %v, want %v", limit, got, want)
		}
	}
	for _, c := range []struct {
		before int64
		want   []int64
	}{{58, []int64{52, 55}}, {59, []int64{55, 58}}, {5, []int64{1, 4}}, {2, []int64{1}}, {1, nil}, {9999, []int64{55, 58}}} {
		rows, _, err := s.Search(t.Context(), "7", words(t, "찾는"), c.before, 2)
		if err != nil {
			t.Fatal(err)
		}
		wantSeqs(t, fmt.Sprintf("before %d", c.before), rows, c.want...)
	}
}

func justSaid(t *testing.T, s Searchable) {
	for i := range int64(10) {
		mustAppend(t, s, "7", i, Line(fmt.Sprint("r", i), fmt.Sprintf("한마디 %d번", 100+i)))
		wantFound(t, s, "7", fmt.Sprintf("%d번", 100+i), i+1)
	}
	if got := searchAll(t, s, "7", "한마디", 50); len(got) != 10 {
		t.Errorf("of 10 lines %d are found", len(got))
	}
}

// A search that can find nothing for thousands of rows says so, and goes on.
func longWayBack(t *testing.T, s Searchable) {
	const total = 6000
	rows := make([]chat.Row, total)
	for i := range rows {
		rows[i] = Line(fmt.Sprintf("r%05d", i), "나다가나")
	}
	rows[0].Text, rows[10].Text, rows[11].Text = "가나다", "꽃", "🌸"
	for at := 0; at < total; at += 1000 {
		mustAppend(t, s, "7", int64(at), rows[at:at+1000]...)
	}
	wantFound(t, s, "7", "가나다", 1)
	wantFound(t, s, "7", "꽃", 11)
	wantFound(t, s, "7", "🌸", 12)
}

func queriesAreTexts(t *testing.T, s Searchable) {
	texts := []string{`"방송"`, "a OR b", "NEAR(x y)", "x*", "-나", "col:on", "^시작", "'; DROP TABLE lines; --", "%_%", `\ud83d`, "AND"}
	say(t, s, "7", texts...)
	for i, q := range texts {
		if got := searchAll(t, s, "7", q, 50); !slices.Contains(got, int64(i+1)) {
			t.Errorf("search %q: got %v, want %d among them", q, got, i+1)
		}
	}
	wantFound(t, s, "7", strings.Repeat("가나", 50))
}

func nothingToFind(t *testing.T, s Searchable) {
	wantFound(t, s, "nobody", "안녕")
	wantFound(t, s, "nobody", "네")
	say(t, s, "7", "네")
	wantFound(t, s, "7", "안녕")
	wantFound(t, s, "7", "네", 1)
}

func prefixedRooms(t *testing.T, s Searchable) {
	say(t, s, "7", "안녕 하나", "둘")
	say(t, s, "70", "안녕 하나", "안녕 둘")
	say(t, s, "a", "셋 안녕")
	wantFound(t, s, "7", "안녕", 1)
	wantFound(t, s, "70", "안녕", 1, 2)
	wantFound(t, s, "a", "안녕", 1)
}
