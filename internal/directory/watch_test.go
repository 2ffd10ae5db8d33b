package directory

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"
)

// TestRoomsAreLookedAtTogether: a look may wait for a room server, and there are
// thousands of rooms.
func TestRoomsAreLookedAtTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watchlist
		for i := range 2*looksAtOnce + 1 {
			w.Watch(fmt.Sprint("r", i))
		}
		began := time.Now()
		w.lookAt(t.Context(), maps.Clone(w.rooms), func(room string) bool {
			time.Sleep(time.Second)
			return room == "r0"
		})
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("%d looks of a second each took %v, want 3 s", 2*looksAtOnce+1, took)
		}
		if len(w.rooms) != 1 || w.rooms["r0"] == 0 {
			t.Errorf("watched on: %v, want r0 alone", w.rooms)
		}
	})
}
