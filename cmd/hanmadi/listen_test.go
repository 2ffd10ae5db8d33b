package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// listen outlives the server: it connects again by itself and goes on where it
// stood, every seq once.
func TestListenGoesOnByItself(t *testing.T) {
	s := startServer(t, "serve")
	viewer := mint(t, "42", "하늘")
	listen := s.program(mint(t, "7", ""), "listen", "--json")
	listen.awaitSaid("linked to room 7")
	for round := range 3 {
		s.say(viewer, "7", fmt.Sprint("앞 ", round))
		eventually(t, "listen prints what was said", func() bool { return strings.Contains(listen.out.String(), fmt.Sprint("앞 ", round)) })
		s.kill()
		s.start()
		s.say(viewer, "7", fmt.Sprint("뒤 ", round))
		// It waits up to 15 s between two tries, as pages should.
		if !within(4*patience, func() bool { return strings.Contains(listen.out.String(), fmt.Sprint("뒤 ", round)) }) {
			t.Fatalf("listen does not go on; stderr:\n%s", listen.err.String())
		}
	}
	for i, e := range listen.listened() {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has seq %d: %+v", i, e.Seq, e)
		}
	}
	listen.signal(os.Interrupt)
	if code := listen.wait(); code != exitOK {
		t.Errorf("exit code after Ctrl-C: got %d, want 0; stderr:\n%s", code, listen.err.String())
	}
}

// A terminal is not to be moved, coloured or fooled by what others type. What
// the server takes out of texts it cannot take out of attrs and nicknames of a
// log that another program wrote, so listen trusts nothing.
func TestListenVerifiesAndShowsControlCharacters(t *testing.T) {
	ours, theirs := newKey(t), newKey(t)
	line := `{"seq":1,"kind":"message","at":"2026-11-25T10:00:00.000Z","user":{"id":"42","nickname":"\u001b[31m하늘","role":"viewer"},"text":"a\u0007\u202eb"}`
	payload := `{"room":"7","log":"L","events":[` + line + `]}`
	frame := func(key seal.Key) wire.Events {
		return wire.Events{Payload: payload, KID: key.KID(), Sig: key.Sign([]byte(payload))}
	}
	forged := frame(theirs)
	forged.KID = ours.KID()
	for name, tc := range map[string]struct {
		frame wire.Events
		code  int
		out   string
		err   string
	}{
		"signed by the server":     {frame(ours), exitOK, `#1 \x1b[31m하늘: a\a\u202eb`, ""},
		"signed by another":        {frame(theirs), exitFailed, "", "not from this server"},
		"another's in our name":    {forged, exitFailed, "", "not from this server"},
		"signed for other content": {wire.Events{Payload: payload + " ", KID: ours.KID(), Sig: ours.Sign([]byte(payload))}, exitFailed, "", "not from this server"},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, t.TempDir(), []string{"HANMADI_URL=" + actingServer(t, ours, tc.frame), "HANMADI_TOKEN=x"}, binary, "listen", "--count", "1")
			if code := p.wait(); code != tc.code {
				t.Errorf("exit code: got %d, want %d", code, tc.code)
			}
			if got := strings.TrimSpace(p.out.String()); !strings.HasSuffix(got, tc.out) || tc.out == "" && got != "" {
				t.Errorf("stdout: got %q, want %q", got, tc.out)
			}
			if !strings.Contains(p.err.String(), tc.err) || strings.ContainsRune(p.err.String(), 0x1b) {
				t.Errorf("stderr: got %q, want it to say %q", p.err.String(), tc.err)
			}
		})
	}
}

func newKey(t *testing.T) seal.Key {
	t.Helper()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// actingServer gives every link one frame, and a key to verify it with.
func actingServer(t *testing.T, key seal.Key, events wire.Events) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/jwks.json", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(seal.NewKeySet(key.Public()).JSON()) })
	mux.HandleFunc("/v1/presenter", func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		var start map[string]any
		_, data, err := ws.Read(r.Context())
		if err != nil || json.Unmarshal(data, &start) != nil || start["type"] != "start" {
			t.Errorf("the first frame of listen: got %q %v, want start", data, err)
			return
		}
		_ = ws.Write(r.Context(), websocket.MessageText, wire.Encode(wire.Welcome{Room: "7", Log: "L", Head: 1, Session: "S", HeartbeatS: 25}))
		_ = ws.Write(r.Context(), websocket.MessageText, wire.Encode(events))
		_, _, _ = ws.Read(r.Context()) // until listen goes
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}
