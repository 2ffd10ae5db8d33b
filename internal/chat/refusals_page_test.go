package chat_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

var update = flag.Bool("update", false, "write docs/refusals.md (make docs)")

const refusalsPage = "../../docs/refusals.md"

func TestRefusalsPage(t *testing.T) {
	want := pageOfRefusals()
	if *update {
		if err := os.WriteFile(refusalsPage, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(refusalsPage); err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/refusals.md is not what the catalogue says (%v): run make docs", err)
	}
}

const refusalsIntro = `# Refusals

<!-- Made from internal/chat/catalogue.go by "make docs". Edit the catalogue. -->

Every way in which Hanmadi says no. Over HTTP a refusal is a problem of RFC 9457:

` + "```json" + `
{
  "type": "/problems/message.too_long",
  "title": "Message is too long",
  "status": 422,
  "detail": "메시지는 500자까지 보낼 수 있습니다. (현재 612자)",
  "code": "message.too_long",
  "request_id": "4bf92f3577b34da6a3ce929d0e0e4736",
  "params": { "max": 500, "length": 612 }
}
` + "```" + `

- **code** is stable: decide by it. Treat one that you do not know by its status.
- **detail** is the sentence to show, in Korean, or in English where Accept-Language prefers it
  (Content-Language says which). type leads to a page about the code.
- **params** are what the sentence names, for clients that write their own. They stand in a member of their own,
  so that none can clash with the members that RFC 9457 defines.
- **retry_after_ms** stands beside the header Retry-After, which is in whole seconds, rounded up. Both are there
  whenever the table below says *later* or *same*. In the sentences {wait} is this time.

Over a link the same code and sentence come in an error frame before the close.

| again? | what to do with the same request |
|---|---|
| never | Change something first |
| later | Send it again after Retry-After; a link without retry_after_s at once |
| token | Send it again with a new token |
| same | Send it again with the same Idempotency-Key after Retry-After, to learn the outcome |

| code | status | again? | params | sentence |
|---|---|---|---|---|
`

func pageOfRefusals() []byte {
	var b bytes.Buffer
	b.WriteString(refusalsIntro)
	catalogue := chat.Catalogue()
	for _, code := range slices.Sorted(maps.Keys(catalogue)) {
		e := catalogue[code]
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s | %s<br>%s |\n", code, e.Status, e.Retry, strings.Join(e.Fields(), ", "), e.Korean, e.English)
	}
	return b.Bytes()
}
