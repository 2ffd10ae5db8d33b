package web

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/spec"
	"github.com/hanmadi/hanmadi/internal/spec/spectest"
)

func documents(t *testing.T) *spectest.Documents {
	t.Helper()
	docs, err := spectest.Load()
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

// registered reads the routes where they stand, on one screen in web.go: a mux
// does not tell its patterns.
func registered(t *testing.T) (routes []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "web.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); !ok || sel.Sel.Name != "route" {
				return true
			}
			pattern, err := strconv.Unquote(call.Args[1].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			routes = append(routes, f.Name.Name+" "+pattern)
			return true
		})
	}
	return routes
}

func TestRoutesAreThoseOfTheDocument(t *testing.T) {
	var documented []string
	for _, op := range documents(t).Operations() {
		face := "public"
		if op.Operator {
			face = "admin"
		}
		documented = append(documented, fmt.Sprint(face, " ", op.Method, " ", op.Path))
	}
	routes := registered(t)
	for _, r := range routes {
		if !slices.Contains(documented, r) {
			t.Errorf("%s is served and not documented", r)
		}
	}
	for _, d := range documented {
		if !slices.Contains(routes, d) {
			t.Errorf("%s is documented and not served", d)
		}
	}
}

func TestDocumentsAreServed(t *testing.T) {
	f := newFixture(t, nil)
	for path, want := range map[string][]byte{"/openapi.json": spec.OpenAPI(), "/asyncapi.json": spec.AsyncAPI()} {
		resp, body := f.call("GET", path, "")
		if resp.StatusCode != 200 || !bytes.Equal(body, want) {
			t.Errorf("%s: %d, %d bytes, want %d", path, resp.StatusCode, len(body), len(want))
		}
	}
}

// What RFC 9457 and the statuses ask for is in the document, and held against
// every refusal of every test; what no schema can say is here.
func TestTimesToWaitAreRoundedUp(t *testing.T) {
	f := newFixture(t, nil)
	for wait, want := range map[time.Duration][2]string{
		time.Nanosecond:         {"1", `"retry_after_ms":1,`},
		time.Second:             {"1", `"retry_after_ms":1000,`},
		1500 * time.Millisecond: {"2", `"retry_after_ms":1500,`},
		time.Minute + 1:         {"61", `"retry_after_ms":60001,`},
	} {
		w := httptest.NewRecorder()
		rec := &recorder{ResponseWriter: w, requestID: "R"}
		f.server.refuse(rec, httptest.NewRequest("GET", "/", nil), &chat.Refusal{Code: chat.Overloaded, RetryAfter: wait})
		if got := w.Header().Get("Retry-After"); got != want[0] || !strings.Contains(w.Body.String(), want[1]) {
			t.Errorf("%v: got Retry-After %s and %s, want %s and %s", wait, got, w.Body, want[0], want[1])
		}
	}
}

// A handshake that is none is refused like everything else, not in the words of
// a library.
func TestBrokenHandshakes(t *testing.T) {
	f := newFixture(t, original)
	good := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
	for i := 0; i < len(good); i += 2 {
		bad := append(slices.Clone(good[:i]), good[i+2:]...)
		for _, path := range []string{"/v1/presenter", "/chatting"} {
			resp, body := f.call("GET", path, "", bad...)
			f.wantProblem("without "+good[i], resp, body, chat.UpgradeRequired)
		}
	}
	resp, body := f.call("GET", "/v1/presenter", "", append(slices.Clone(good[:6]), "Sec-WebSocket-Key", "AA==")...)
	f.wantProblem("a short key", resp, body, chat.UpgradeRequired)
}

// Refusals that several calls share are the same at each of them.
func TestRefusalsOfEveryCall(t *testing.T) {
	f := newFixture(t, nil).onAir()
	const opening = `{"id":"881"}`
	large := `{"id":"` + strings.Repeat("a", MaxBody) + `"}`
	op := []string{"Authorization", "Bearer operator"}
	for _, c := range []struct {
		method, path, body string
		headers            []string
		want               chat.Code
	}{
		{"PUT", "/v1/rooms/7/broadcast", opening, nil, chat.TokenMissing},
		{"PUT", "/v1/rooms/7/broadcast", opening, []string{"token", "expired"}, chat.TokenExpired},
		{"PUT", "/v1/rooms/7/broadcast", opening, []string{"token", "!"}, chat.TokenInvalid},
		{"PUT", "/v1/rooms/7/broadcast", opening, append([]string{"token", "7"}, op...), chat.TokenMismatch},
		{"PUT", "/v1/rooms/-/broadcast", opening, op, chat.RoomInvalid},
		{"PUT", "/v1/rooms/7/broadcast", "", op, chat.BodyType},
		{"PUT", "/v1/rooms/7/broadcast", large, op, chat.BodyTooLarge},
		{"DELETE", "/v1/rooms/7/broadcast", "", nil, chat.TokenMissing},
		{"DELETE", "/v1/rooms/7/broadcast", "", []string{"token", "expired"}, chat.TokenExpired},
		{"DELETE", "/v1/rooms/-/broadcast", "", op, chat.RoomInvalid},
		{"POST", "/check", "", nil, chat.BodyType},
		{"POST", "/check", large, nil, chat.BodyTooLarge},
		{"POST", "/check", `[]`, nil, chat.BodyInvalid},
		{"GET", "/v1/rooms/-", "", nil, chat.RoomInvalid},
		{"GET", "/v1/rooms/-/head", "", nil, chat.RoomInvalid},
		{"GET", "/v1/presenter", "", []string{"Origin", "https://evil.example"}, chat.OriginForeign},
	} {
		resp, body := f.call(c.method, c.path, c.body, c.headers...)
		f.wantProblem(c.method+" "+c.path, resp, body, c.want)
	}
}

func TestFailuresOfTheLogOverHTTP(t *testing.T) {
	for failure, want := range map[error]chat.Code{chat.ErrLogUnavailable: chat.LogUnavailable, chat.ErrOutcomeUnknown: chat.LogOutcomeUnknown} {
		f := newFixture(t, nil).onAir()
		f.log.FailWith(func(string, []chat.Row) (bool, error) { return false, failure })
		for _, c := range [][3]string{
			{"POST", "/v1/rooms/7/messages", `{"text":"안녕"}`},
			{"PUT", "/v1/rooms/7/broadcast", `{"id":"881"}`},
			{"DELETE", "/v1/rooms/7/broadcast", ""},
		} {
			resp, body := f.call(c[0], c[1], c[2], "Authorization", "Bearer operator")
			f.wantProblem(c[0]+" "+c[1], resp, body, want)
		}
	}
}
