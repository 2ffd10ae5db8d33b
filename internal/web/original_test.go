package web

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/spec/spectest"
	"github.com/hanmadi/hanmadi/internal/text"
	"github.com/hanmadi/hanmadi/internal/token"
)

// Captured in the field: the shapes of /send/message's body and error, the
// frames start, sendChatting, error and tokenException, and the sentences.
// Assumed, because nobody captured them: the timestamp's format, that bad tokens
// are 400 on /send/message, the body of the 202, and what follows a
// tokenException (a close with our code).

func original(o *Options) {
	o.Original = true
	o.Zone, _ = time.LoadLocation("Asia/Seoul")
}

func TestOriginalSay(t *testing.T) {
	f := newFixture(t, original).onAir()
	auth := []string{"token", "42"}
	stamp := regexp.MustCompile(`^\{"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+09:00","status":(\d+),"message":"([^"]*)","path":"/send/message"\}\n$`)
	for _, c := range []struct {
		name, body string
		headers    []string
		status     int
		message    string // "": an empty body
	}{
		{"as the app sends it", `{"presenterIdx":7,"userType":"viewer","textMessage":"안녕하세요"}`, auth, 200, ""},
		{"the id as a string", `{"presenterIdx":"7","userType":"viewer","textMessage":"안녕"}`, auth, 200, ""},
		{"the token in the body", `{"presenterIdx":7,"textMessage":"안녕","token":"43"}`, nil, 200, ""},
		{"the same user in the body", `{"presenterIdx":7,"textMessage":"안녕","token":"42"}`, auth, 200, ""},
		{"another user in the body", `{"presenterIdx":7,"textMessage":"안녕","token":"43"}`, auth, 400, originalForged},
		{"a bad token in the body", `{"presenterIdx":7,"textMessage":"안녕","token":"expired"}`, auth, 400, originalExpired},
		{"by the number of the broadcast", `{"roomIdx":881,"textMessage":"안녕"}`, auth, 200, ""},
		{"another broadcast's number", `{"roomIdx":882,"textMessage":"안녕"}`, auth, 400, originalNotLive},
		{"the presenter, to themselves", `{"userType":"viewer","textMessage":"안녕"}`, []string{"token", "7"}, 200, ""},
		{"a viewer who calls themselves presenter", `{"userType":"presenter","textMessage":"안녕"}`, auth, 400, originalNoRoom},
		{"null presenter", `{"presenterIdx":null,"textMessage":"안녕"}`, auth, 400, originalNoRoom},
		{"not live", `{"presenterIdx":8,"textMessage":"안녕"}`, auth, 400, originalNotLive},
		{"no text", `{"presenterIdx":7}`, auth, 400, originalNoText},
		{"null text", `{"presenterIdx":7,"textMessage":null}`, auth, 400, originalNoText},
		{"expired", `{"presenterIdx":7,"textMessage":"안녕"}`, []string{"token", "expired"}, 400, originalExpired},
		{"forged", `{"presenterIdx":7,"textMessage":"안녕"}`, []string{"token", "!"}, 400, originalForged},
		{"a number with a fraction", `{"presenterIdx":7.5,"textMessage":"안녕"}`, auth, 400, "?"},
		{"always Korean", `{"presenterIdx":8,"textMessage":"안녕"}`, append([]string{"Accept-Language", "en"}, auth...), 400, originalNotLive},
	} {
		if c.name == "by the number of the broadcast" {
			if _, _, err := f.desk.StartBroadcast(t.Context(), "7", chat.User{ID: "op"}, chat.Opening{ID: "881"}); err != nil {
				t.Fatal(err)
			}
		}
		resp, body := f.call("POST", "/send/message", c.body, c.headers...)
		m := stamp.FindStringSubmatch(string(body))
		switch {
		case resp.StatusCode != c.status:
			t.Errorf("%s: got %d %s, want %d", c.name, resp.StatusCode, body, c.status)
		case c.message == "" && len(body) != 0:
			t.Errorf("%s: got %s, want an empty body", c.name, body)
		case c.message != "" && (m == nil || c.message != "?" && m[2] != c.message):
			t.Errorf("%s: got %s, want the sentence %q", c.name, body, c.message)
		}
	}
	if resp, _ := newFixture(t, nil).call("POST", "/send/message", `{}`); resp.StatusCode != 404 {
		t.Errorf("where it is not served: %d, want 404", resp.StatusCode)
	}
}

func TestOriginalSentencesWhilePresenterIsAway(t *testing.T) {
	gone := &chat.Refusal{Code: chat.PresenterGone}
	if status, got := originalSentence(gone, gone); status != 400 || got != originalNoSession {
		t.Errorf("to a viewer: %d %s", status, got)
	}
	if status, got := originalSentence(errPresenterReconnect, gone); status != 202 || got != originalReconnect {
		t.Errorf("to the presenter: %d %s", status, got)
	}
}

// read gives the next message of a socket, or how it was closed.
func read(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	_, data, err := conn.Read(t.Context())
	if err != nil {
		return "closed " + websocket.CloseStatus(err).String()
	}
	channel := "/chatting"
	if strings.HasPrefix(string(data), `{"type":`) {
		channel = "/v1/presenter"
	}
	spectest.Frame(t, channel, spectest.Server, data)
	return string(data)
}

func (f *fixture) dial(path string, header http.Header, first string) *websocket.Conn {
	f.Helper()
	conn, _, err := websocket.Dial(f.Context(), f.http.URL+path, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.CloseNow() })
	if first != "" {
		if err := conn.Write(f.Context(), websocket.MessageText, []byte(first)); err != nil {
			f.Fatal(err)
		}
	}
	return conn
}

// linked waits until a room's link is that of a session other than before.
func (f *fixture) linked(before string) string {
	f.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		st, err := f.desk.State(f.Context(), "7")
		linked, _ := f.server.Hub.Linked("7")
		if err == nil && linked && st.Link.Session != before {
			return st.Link.Session
		}
		select {
		case <-deadline:
			f.Fatal("no link within 15 s")
		case <-tick.C:
		}
	}
}

func sendChatting(t *testing.T, f *fixture, message string, row chat.Row) string {
	t.Helper()
	want, err := json.Marshal(map[string]string{"message": message})
	if err != nil {
		t.Fatal(err)
	}
	return `{"id":"sendChatting","nickname":"이름42",` + strings.Trim(string(want), "{}") + `,"time":"` + row.At.In(f.server.Zone).Format("15:04") + `"}`
}

func TestOriginalLink(t *testing.T) {
	f := newFixture(t, original)
	const start = `{"id":"start","token":"7"}`
	old := f.dial("/chatting", nil, start)
	session := f.linked("")
	say := func(text string) string {
		t.Helper()
		resp, body := f.say(text)
		if resp.StatusCode != 201 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		rows, _ := f.log.Before(t.Context(), "7", 0, 1)
		return sendChatting(t, f, text, rows[0])
	}
	for _, text := range []string{"안녕하세요", "둘째 <줄>"} {
		want := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(say(text))
		if got := read(t, old); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}

	// One of ours takes the room, and has history; then the original's app does,
	// and goes on where its last socket stood.
	ours := f.dial("/v1/presenter", http.Header{"Token": {"7"}}, "")
	session = f.linked(session)
	if got := read(t, ours); !strings.Contains(got, `"welcome"`) {
		t.Errorf("ours: %s", got)
	}
	if got := read(t, old); !strings.HasPrefix(got, `{"id":"error","message":"`) {
		t.Errorf("the replaced app's last word: %s", got)
	}
	if got := read(t, old); got != "closed StatusCode(4500)" {
		t.Errorf("the replaced app: %s", got)
	}
	missed := say("그 사이")
	again := f.dial("/chatting", nil, start)
	f.linked(session)
	if got := read(t, again); got != missed {
		t.Errorf("after the return: got %s, want %s", got, missed)
	}
}

func TestOriginalLinkRefusals(t *testing.T) {
	f := newFixture(t, original)
	const reject = `{"id":"tokenException","response":"reject","message":"Jwt Exception"}`
	for name, first := range map[string]string{"forged": `{"id":"start","token":"!"}`, "expired": `{"id":"start","token":"expired"}`} {
		conn := f.dial("/chatting", nil, first)
		if got := read(t, conn); got != reject {
			t.Errorf("%s: got %s, want %s", name, got, reject)
		}
		if got := read(t, conn); !strings.HasPrefix(got, "closed StatusCode(4") {
			t.Errorf("%s: then %s, want a close", name, got)
		}
	}
	conn := f.dial("/chatting", nil, `{"id":"hello"}`)
	if got := read(t, conn); !strings.HasPrefix(got, `{"id":"error","message":"`) {
		t.Errorf("another first frame: %s", got)
	}
}

const gatewaySecret = "the gateway's own secret, 32 bytes or more"

func behindGateway(o *Options) {
	original(o)
	o.Gateway = token.Gateway{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Secret: []byte(gatewaySecret), Header: "X-Gateway-Secret"}
}

func TestIdentityHeadersOverHTTP(t *testing.T) {
	f := newFixture(t, behindGateway).onAir()
	const ok = `{"text":"안녕"}`
	forwarded := []string{"X-Gateway-Secret", gatewaySecret, "X-Forward-Useridx", "42", "X-Forward-Nickname", "%ED%95%98%EB%8A%98"}
	resp, body := f.call("POST", "/v1/rooms/7/messages", ok, forwarded...)
	rows, _ := f.log.Before(t.Context(), "7", 0, 1)
	if resp.StatusCode != 201 || rows[0].User != (chat.Author{ID: "42", Nickname: "하늘"}) {
		t.Errorf("by the gateway's word: %d %s, logged %+v", resp.StatusCode, body, rows[0].User)
	}
	for _, c := range []struct {
		name    string
		headers []string
		want    chat.Code
	}{
		{"a token of somebody else", append([]string{"token", "43"}, forwarded...), chat.TokenMismatch},
		{"a bad token", append([]string{"token", "!"}, forwarded...), chat.TokenInvalid},
		{"without the secret", forwarded[2:], chat.IdentityUntrusted},
		{"in another spelling", append([]string{"x_forward_useridx", "7"}, forwarded...), chat.IdentityInvalid},
		{"from another site's page", append([]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, forwarded...), chat.OriginForeign},
		{"from another site's old page", append([]string{"Origin", "https://evil.example"}, forwarded...), chat.OriginForeign},
	} {
		resp, body := f.call("POST", "/v1/rooms/7/messages", ok, c.headers...)
		f.wantProblem(c.name, resp, body, c.want)
	}
	for name, headers := range map[string][]string{
		"our page":          {"Sec-Fetch-Site", "same-origin"},
		"a sister site":     {"Sec-Fetch-Site", "same-site"},
		"a configured site": {"Sec-Fetch-Site", "cross-site", "Origin", "https://stage.example"},
		"the same user's":   {"token", "42"},
	} {
		if resp, body := f.call("POST", "/v1/rooms/7/messages", ok, append(headers, forwarded...)...); resp.StatusCode != 201 {
			t.Errorf("%s: %d %s, want 201", name, resp.StatusCode, body)
		}
	}
	header := http.Header{"X-Gateway-Secret": {gatewaySecret}, "X-Forward-Useridx": {"7"}}
	if got := read(t, f.dial("/v1/presenter", header, "")); !strings.Contains(got, `"welcome"`) {
		t.Errorf("a link by the gateway's word: %s", got)
	}
}

func TestRoomServersContract(t *testing.T) {
	f := newFixture(t, nil)
	ask := func(body string) string {
		_, data := f.call("POST", "/check", body)
		return strings.TrimSpace(string(data))
	}
	if got := ask(`{"presenterIdx":"7"}`); got != `{"data":{"alive":false}}` {
		t.Errorf("not live: %s", got)
	}
	if _, _, err := f.desk.StartBroadcast(t.Context(), "7", chat.User{ID: "op"}, chat.Opening{ID: "881"}); err != nil {
		t.Fatal(err)
	}
	if got := ask(`{"presenterIdx":"7"}`); got != `{"data":{"alive":true,"roomIdx":"881"}}` {
		t.Errorf("live: %s", got)
	}
	if got := ask(`{"presenterIdx":7}`); got != `{"data":{"alive":true,"roomIdx":"881"}}` {
		t.Errorf("the id as a number: %s", got)
	}
	resp, body := f.call("POST", "/check", `{"presenterIdx":"a b"}`)
	f.wantProblem("no id", resp, body, chat.BodyInvalid)
	resp, body = f.call("POST", "/check", `{"presenterIdx":null}`)
	f.wantProblem("null", resp, body, chat.RoomInvalid)
}

func FuzzOriginal(f *testing.F) {
	for _, seed := range []string{`{"presenterIdx":7,"userType":"viewer","textMessage":"안녕"}`, `{"presenterIdx":"u-7_x","textMessage":"a","token":"x.y.z"}`,
		`{"roomIdx":1234567890123456789,"textMessage":"a"}`, `{"presenterIdx":null,"textMessage":null}`, `{"presenterIdx":-7,"textMessage":"a"}`,
		`{"presenterIdx":07,"textMessage":"a"}`, `{"presenterIdx":7e1,"textMessage":"a"}`, `{"presenterIdx":true,"textMessage":"a"}`,
		`{"presenterIdx":{"a":1},"textMessage":"a"}`, `{"PRESENTERIDX":8,"presenterIdx":7,"textMessage":"a"}`, `{"presenterIdx":"\u0037","textMessage":"a"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeOriginal(data)
		if err != nil {
			wantKnown(t, err)
			return
		}
		for what, v := range map[string]id{"presenterIdx": got.PresenterIdx, "roomIdx": got.RoomIdx} {
			if v != "" && !chat.ValidID(string(v)) {
				t.Errorf("%q: %s %q is no id", data, what, v)
			}
		}
		if clean, err := text.Message(got.TextMessage); err != nil || clean != got.TextMessage {
			t.Errorf("%q is not clean", got.TextMessage)
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeOriginal(again); err != nil || back != got {
			t.Errorf("%q became %+v, and that, written again, %+v %v", data, got, back, err)
		}
	})
}
