package directory

import (
	"encoding/json"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Whatever a room server answers, what is believed of it is a yes or a no and
// the id of a broadcast or none, and says the same when it is written again.
func FuzzParseAnswer(f *testing.F) {
	for _, answer := range []string{
		`{"data":{"alive":true,"roomIdx":881}}`, `{"data":{"alive":false}}`, `{"data":{"alive":true,"roomIdx":"b-1"}}`,
		`{"data":{"alive":true,"roomIdx":""}}`, `{"data":{"alive":true,"roomIdx":null}}`, `{"data":{"alive":true,"roomIdx":1e3}}`,
		`{"data":{"alive":null}}`, `{"data":{"alive":"true"}}`, `{"data":[]}`, `{"data":{"alive":true,"roomIdx":{}}}`, `null`, `{`,
	} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		word, err := parseAnswer(data)
		if err != nil {
			if word != (chat.Word{}) {
				t.Errorf("%q is refused and believed: %+v", data, word)
			}
			return
		}
		if word.At.IsZero() || word.Broadcast != "" && !chat.ValidID(word.Broadcast) {
			t.Errorf("%q became %+v", data, word)
		}
		again, err := json.Marshal(map[string]any{"data": map[string]any{"alive": word.Live, "roomIdx": word.Broadcast}})
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseAnswer(again); err != nil || back.Live != word.Live || back.Broadcast != word.Broadcast {
			t.Errorf("%q became %+v, and that, written again, %+v %v", data, word, back, err)
		}
	})
}
