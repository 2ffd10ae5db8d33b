package chatlog

import (
	"errors"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

type present struct{}

func (present) Linked(string) (bool, time.Time) { return true, time.Time{} }
func (present) Nudge(string, int64)             {}

// A key is remembered by the log and nothing else: the next process, which has
// never heard of it, gives the first answer, whatever has changed since.
func TestKeysOutliveTheProcess(t *testing.T) {
	path := file(t)
	viewer := chat.User{ID: "42", Nickname: "하늘"}
	process := func(do func(*chat.Desk)) {
		t.Helper()
		s, err := OpenSQLite(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		desk := chat.NewDesk(NewTail(s, 1<<20, nil), present{}, chat.DeskOptions{NewID: NewID})
		do(desk)
		desk.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	send := func(desk *chat.Desk, user chat.User, room, text string) (chat.Receipt, error) {
		return desk.Send(t.Context(), chat.Draft{Room: room, User: user, Text: text, Key: "k"})
	}
	first := map[string]chat.Row{}
	process(func(desk *chat.Desk) {
		for _, room := range []string{"7", "8"} {
			if _, err := desk.TakeLink(t.Context(), chat.User{ID: room}, "S"); err != nil {
				t.Fatal(err)
			}
			got, err := send(desk, viewer, room, "한 번")
			if err != nil {
				t.Fatal(err)
			}
			first[room] = got.Row
		}
		if _, err := desk.EndBroadcast(t.Context(), "7", chat.User{ID: "op", Role: chat.RoleOperator}, "operator", nil); err != nil {
			t.Fatal(err)
		}
	})
	process(func(desk *chat.Desk) {
		renamed := viewer
		renamed.Nickname = "바다"
		for room, want := range first {
			got, err := send(desk, renamed, room, "한 번")
			if err != nil || got.Row.ID != want.ID || got.Row.Seq != want.Seq || !got.Row.At.Equal(want.At) || got.Row.User != want.User {
				t.Errorf("room %s: got %+v %v, want %+v", room, got.Row, err, want)
			}
		}
		var ref *chat.Refusal
		if _, err := send(desk, viewer, "7", "다른 말"); !errors.As(err, &ref) || ref.Code != chat.IdempotencyMismatch {
			t.Errorf("other words: got %v, want %s", err, chat.IdempotencyMismatch)
		}
		if got, err := send(desk, chat.User{ID: "43"}, "8", "한 번"); err != nil || got.Row.ID == first["8"].ID {
			t.Errorf("another user's key is another key: %+v %v", got.Row, err)
		}
	})
}
