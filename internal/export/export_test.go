package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

var at = time.Date(2026, 11, 22, 10, 0, 0, 123e6, time.UTC)

// rows are one of each kind that is exported in a way of its own.
func rows() []chat.Row {
	return []chat.Row{
		{ID: "A", Room: "7", Seq: 1, At: at, Broadcast: "881", Kind: chat.KindBroadcast, User: chat.Author{ID: "7", Nickname: "방송자"},
			Details: chat.Details{Role: chat.RolePresenter, State: chat.BroadcastStarted, Title: "첫 방송", StartedAt: &at}, Staff: chat.StaffDetails{Reason: "replaced"}},
		{ID: "B", Room: "7", Seq: 2, At: at, Broadcast: "881", Kind: chat.KindLink, User: chat.Author{ID: "7"}, Staff: chat.StaffDetails{Session: "S1"}},
		{ID: "C", Room: "7", Seq: 3, At: at, Broadcast: "881", Kind: chat.KindMessage, User: chat.Author{ID: "42", Nickname: "하늘"}, Text: `안녕 <b>, "따옴표"` + "👩‍👩‍👧", Idem: "secret-hash",
			Details: chat.Details{Attrs: json.RawMessage(`{"badge":"별"}`), Reply: &chat.Reply{Seq: 1, Nickname: "바다", Text: "앗"}}},
	}
}

func export(t *testing.T, opts Options, rows ...chat.Row) string {
	t.Helper()
	var out bytes.Buffer
	w, err := New(&out, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if err := w.Write(row); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestNDJSON(t *testing.T) {
	for public, want := range map[bool]string{
		true: `{"room":"7","seq":1,"id":"A","at":"2026-11-22T10:00:00.123Z","broadcast":"881","kind":"broadcast","state":"started","title":"첫 방송"}
{"room":"7","seq":2,"kind":"hidden"}
{"room":"7","seq":3,"id":"C","at":"2026-11-22T10:00:00.123Z","broadcast":"881","kind":"message","user":{"id":"42","nickname":"하늘","role":"viewer","attrs":{"badge":"별"}},"text":"안녕 <b>, \"따옴표\"👩‍👩‍👧","reply":{"seq":1,"nickname":"바다","text":"앗"}}
`,
		false: `{"room":"7","seq":1,"id":"A","at":"2026-11-22T10:00:00.123Z","broadcast":"881","kind":"broadcast","user":{"id":"7","nickname":"방송자","role":"presenter"},"state":"started","title":"첫 방송","started_at":"2026-11-22T10:00:00.123Z","staff":{"reason":"replaced"}}
{"room":"7","seq":2,"id":"B","at":"2026-11-22T10:00:00.123Z","broadcast":"881","kind":"link","user":{"id":"7","nickname":"","role":"viewer"},"staff":{"session":"S1"}}
{"room":"7","seq":3,"id":"C","at":"2026-11-22T10:00:00.123Z","broadcast":"881","kind":"message","user":{"id":"42","nickname":"하늘","role":"viewer","attrs":{"badge":"별"}},"text":"안녕 <b>, \"따옴표\"👩‍👩‍👧","reply":{"seq":1,"nickname":"바다","text":"앗"}}
`,
	} {
		if got := export(t, Options{Format: NDJSON, Public: public}, rows()...); got != want {
			t.Errorf("public %v: got\n%swant\n%s", public, got, want)
		}
	}
}

func TestCSV(t *testing.T) {
	for public, want := range map[bool]string{
		true: `room,seq,id,at,broadcast,kind,user,nickname,role,attrs,text,reply_to,state,title
7,1,A,2026-11-22T10:00:00.123Z,881,broadcast,,,,,,,started,첫 방송
7,2,,,,hidden,,,,,,,,
7,3,C,2026-11-22T10:00:00.123Z,881,message,42,하늘,viewer,"{""badge"":""별""}","안녕 <b>, ""따옴표""👩‍👩‍👧",1,,
`,
		false: `room,seq,id,at,broadcast,kind,user,nickname,role,attrs,text,reply_to,state,title,session,reason
7,1,A,2026-11-22T10:00:00.123Z,881,broadcast,7,방송자,presenter,,,,started,첫 방송,,replaced
7,2,B,2026-11-22T10:00:00.123Z,881,link,7,,viewer,,,,,,S1,
7,3,C,2026-11-22T10:00:00.123Z,881,message,42,하늘,viewer,"{""badge"":""별""}","안녕 <b>, ""따옴표""👩‍👩‍👧",1,,,,
`,
	} {
		if got := export(t, Options{Format: CSV, Public: public}, rows()...); got != want {
			t.Errorf("public %v: got\n%swant\n%s", public, got, want)
		}
	}
	if got := export(t, Options{Format: CSV, Public: true, BOM: true}); !strings.HasPrefix(got, "\xef\xbb\xbfroom,") {
		t.Errorf("with a byte order mark: got %q", got)
	}
}

// What a spreadsheet would take for a formula reaches it as text, in every
// column that somebody else fills.
func TestCSVDefusesFormulas(t *testing.T) {
	for text, want := range map[string]string{
		"=1+1": "'=1+1", "+82 10": "'+82 10", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t=1", "\r=1": "'\r=1", "＝1": "'＝1",
		"안녕 =1": "안녕 =1", "'=1": "'=1", "": "", "ㅋㅋ": "ㅋㅋ", " =1": " =1",
	} {
		row := chat.Row{Room: "7", Seq: 1, At: at, Kind: chat.KindMessage, User: chat.Author{ID: "42", Nickname: text}, Text: text, Details: chat.Details{Title: text}}
		records, err := csv.NewReader(strings.NewReader(export(t, Options{Format: CSV}, row))).ReadAll()
		if err != nil || len(records) != 2 {
			t.Fatalf("%q: %v %v", text, records, err)
		}
		for i, name := range records[0] {
			if got := records[1][i]; (name == "nickname" || name == "text" || name == "title") && got != want {
				t.Errorf("%q as %s: got %q, want %q", text, name, got, want)
			}
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestFailingOutputIsToldAtTheEnd(t *testing.T) {
	for _, format := range []Format{NDJSON, CSV} {
		w, err := New(broken{}, Options{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		_ = w.Write(rows()[0])
		if err := w.Close(); err == nil {
			t.Errorf("%s: an output that takes nothing was closed well", format)
		}
	}
	if _, err := New(&bytes.Buffer{}, Options{Format: "xml"}); err == nil {
		t.Error("there is no format xml")
	}
}
