package chat_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

// slowIdem is a log whose reads hang.
type slowIdem struct{ *logtest.Memory }

func (s slowIdem) ByIdem(ctx context.Context, room, idem string) (chat.Row, bool, error) {
	select {
	case <-ctx.Done():
		return chat.Row{}, false, ctx.Err()
	case <-time.After(time.Hour):
		return chat.Row{}, false, errors.New("hung")
	}
}

// TestALineWithAKeyIsBoundedInTime also where the log does not say whether it
// has the key.
func TestALineWithAKeyIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slowIdem{logtest.NewMemory("M")}
		desk := newDesk(log, newPresence())
		if _, err := desk.TakeLink(t.Context(), presenter, "S1"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err := desk.Send(t.Context(), keyed("x", "k"))
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("answered after %v, want 5 s", took)
		}
		wantCode(t, "a log that does not answer", err, chat.LogOutcomeUnknown)
	})
}

// TestAKeyInDoubtIsToldSo: whatever would be refused now, the first line may
// still come to be logged.
func TestAKeyInDoubtIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &stuck{Memory: logtest.NewMemory("M")}
		desk, limits := payingDesk(t, log, newPresence(), chat.DeskOptions{})
		log.hangs = true
		_, err := desk.Send(t.Context(), keyed("한 번", "k"))
		wantCode(t, "the commit hangs", err, chat.LogOutcomeUnknown)
		desk.Close()
		limits.left = 0
		_, err = desk.Send(t.Context(), keyed("한 번", "k"))
		desk.Close()
		wantCode(t, "the same again, with no lines left", err, chat.LogOutcomeUnknown)
		log.land()
		rows := rowsOf(t, log, "7")
		if last := rows[len(rows)-1]; last.Text != "한 번" {
			t.Errorf("in the end the room's last row is %+v, want the line", last)
		}
	})
}
