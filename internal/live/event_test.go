package live

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// TestEventsAreWrittenAsTheirTypeSays holds the encoder by hand against
// encoding/json: the same members with the same values, whatever they are.
func TestEventsAreWrittenAsTheirTypeSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := func(name string) string { return rapid.String().Draw(t, name) }
		e := chat.Event{
			Seq: rapid.Int64().Draw(t, "seq"), ID: text("id"), At: text("at"), Broadcast: text("broadcast"),
			Kind: chat.Kind(text("kind")), Text: text("text"), State: text("state"), Title: text("title"),
		}
		if rapid.Bool().Draw(t, "has user") {
			e.User = &chat.EventUser{ID: text("user"), Nickname: text("nickname"), Role: chat.Role(text("role"))}
			if rapid.Bool().Draw(t, "has attrs") {
				e.User.Attrs, _ = json.Marshal(rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "attrs"))
			}
		}
		if rapid.Bool().Draw(t, "is a reply") {
			e.Reply = &chat.Reply{Seq: rapid.Int64().Draw(t, "reply"), Nickname: text("of"), Text: text("quoted")}
		}
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		got := appendEvent(nil, e)
		var gotValue, wantValue any
		if err := json.Unmarshal(got, &gotValue); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if err := json.Unmarshal(want, &wantValue); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(gotValue, wantValue) {
			t.Errorf("got %s\nwant %s", got, want)
		}
	})
}

// TestEveryMemberOfAnEventIsWritten fails when a member is added to the type
// and not here.
func TestEveryMemberOfAnEventIsWritten(t *testing.T) {
	e := chat.Event{Seq: 1, ID: "i", At: "a", Broadcast: "b", Kind: "k", Text: "t", State: "s", Title: "l",
		User:  &chat.EventUser{ID: "u", Nickname: "n", Role: "r", Attrs: json.RawMessage(`{"x":1}`)},
		Reply: &chat.Reply{Seq: 2, Nickname: "m", Text: "q"}}
	for _, of := range []any{e, *e.User, *e.Reply} {
		for v, i := reflect.ValueOf(of), 0; i < v.NumField(); i++ {
			if v.Field(i).IsZero() {
				t.Errorf("this test leaves %s.%s empty", v.Type(), v.Type().Field(i).Name)
			}
		}
	}
	want, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(appendEvent(nil, e)); got != string(want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func BenchmarkEvent(b *testing.B) {
	e := chat.Event{Seq: 1042, ID: "01JD5W2E7R9T1Y3U5J7K9M1P3Q", At: "2026-11-22T10:00:00.123Z", Broadcast: "881", Kind: chat.KindMessage,
		Text: strings.Repeat("오늘 방송 정말 재미있어요 ", 7), User: &chat.EventUser{ID: "42", Nickname: "하늘", Role: chat.RoleViewer}}
	b.Run("by hand", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			buf = appendEvent(buf[:0], e)
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		for b.Loop() {
			if _, err := encodeJSON(e); err != nil {
				b.Fatal(err)
			}
		}
	})
}
