package live

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/wire"
)

// Whatever the first frame of a socket of the original platform is, it gives a
// token and nothing else, or an ending that the peer is told.
func FuzzOriginalStart(f *testing.F) {
	for _, frame := range []string{`{"id":"start","token":"a.b.c"}`, `{"id":"start"}`, `{"id":"start","token":null}`, `{"id":"stop"}`,
		`{"ID":"start","id":"start"}`, `{"id":"start","token":7}`, `{"id":"start","token":"\ud800"}`, `[]`, `ping`} {
		f.Add([]byte(frame))
	}
	dialect := original{time.UTC}
	f.Fuzz(func(t *testing.T, data []byte) {
		start, why := dialect.start(data)
		if why != nil {
			if why.code != wire.CloseProtocol || why.refusal == nil || start != (wire.Start{}) {
				t.Errorf("%q: got %+v and %+v, want nothing but a protocol error", data, start, why)
			}
			return
		}
		if start != (wire.Start{Token: start.Token}) {
			t.Errorf("%q: got %+v, want nothing but a token", data, start)
		}
		again, err := json.Marshal(originalStart{"start", start.Token})
		if err != nil {
			t.Fatal(err)
		}
		// Escapes can make it longer than a frame may be.
		if back, why := dialect.start(again); back != start && len(again) <= wire.MaxClientFrame {
			t.Errorf("%q became %+v, and that, written again, %+v %+v", data, start, back, why)
		}
	})
}
