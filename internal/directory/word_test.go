package directory

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// TestANoOutlastsTheServersSilence: what it said last counts also for a presenter
// whose link is still open.
func TestANoOutlastsTheServersSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.server.says(200, yes)
		r.send(t, "")
		r.server.says(200, no)
		time.Sleep(2100 * time.Millisecond)
		r.send(t, chat.BroadcastEndedCode)
		r.server.says(503, "")
		time.Sleep(1100 * time.Millisecond)
		r.send(t, chat.BroadcastEndedCode) // it said no 1.1 s ago
	})
}

// TestAnOlderWordUndoesNothing: a word is believed for two seconds, and an
// operator may have opened or ended a broadcast meanwhile.
func TestAnOlderWordUndoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.server.says(200, yes) // 881
		r.send(t, "")
		r.server.says(200, `{"data":{"alive":true,"roomIdx":882}}`)
		time.Sleep(time.Second)
		if _, _, err := r.desk.StartBroadcast(t.Context(), "7", chat.User{ID: "op"}, chat.Opening{ID: "882"}); err != nil {
			t.Fatal(err)
		}
		if row := r.send(t, ""); row.Broadcast != "882" {
			t.Errorf("after PUT 882: line in %s", row.Broadcast)
		}
		time.Sleep(3 * time.Second)
		r.send(t, "")
		r.server.says(200, no)
		if _, err := r.desk.EndBroadcast(t.Context(), "7", chat.User{ID: "op"}, "operator", nil); err != nil {
			t.Fatal(err)
		}
		r.send(t, chat.BroadcastEndedCode)
		if r.state(t).Live() {
			t.Error("live again after DELETE")
		}
	})
}

// TestUnknownRoomsDoNotBreakTheServer: anybody may say a line to a room that the
// room server refuses to speak of, and the others must not suffer.
func TestUnknownRoomsDoNotBreakTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.presence.set("7", false)
		r.server.answer = func(q *http.Request) (int, string, error) {
			if q.ContentLength == 20 {
				return 200, yes, nil
			}
			return 400, "", nil
		}
		for range 5 {
			_, _ = r.desk.Send(t.Context(), chat.Draft{Room: "nobody", User: chat.User{ID: "42"}, Text: "x"})
		}
		r.send(t, "")
	})
}
