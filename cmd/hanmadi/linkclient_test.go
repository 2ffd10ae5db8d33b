package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// What follows is a presenter's page as somebody else would write it from the
// description of the protocol: another WebSocket library than the program's,
// and nothing of ours to decode frames or to verify them.

// event is the public face of a row.
type event struct {
	Seq       int64     `json:"seq"`
	ID        string    `json:"id"`
	At        string    `json:"at"`
	Broadcast string    `json:"broadcast"`
	Kind      string    `json:"kind"`
	User      eventUser `json:"user"`
	Text      string    `json:"text"`
	State     string    `json:"state"`
}

type eventUser struct {
	ID       string `json:"id"`
	Nickname string `json:"nickname"`
	Role     string `json:"role"`
}

// frame is any frame of the server's.
type frame struct {
	Type       string `json:"type"`
	Room       string `json:"room"`
	Log        string `json:"log"`
	Head       int64  `json:"head"`
	HeartbeatS int    `json:"heartbeat_s"`
	Payload    string `json:"payload"`
	KID        string `json:"kid"`
	Sig        string `json:"sig"`
	To         int64  `json:"to"`
	Code       string `json:"code"`
	Detail     string `json:"detail"`
}

// startFrame begins a link.
type startFrame struct {
	Type  string `json:"type"`
	Token string `json:"token"`
	After *int64 `json:"after,omitempty"`
	Log   string `json:"log,omitempty"`
}

// linkClient is an open link.
type linkClient struct {
	conn *websocket.Conn
	told string // code of the error frame before a close
}

// dialLink connects to a server and sends the start frame.
func dialLink(ctx context.Context, address string, start startFrame) (*linkClient, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+address+"/v1/presenter", nil)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(64 << 10)
	l := &linkClient{conn: conn}
	start.Type = "start"
	if err := l.send(ctx, start); err != nil {
		_ = conn.CloseNow() // broken already
		return nil, err
	}
	return l, nil
}

func (l *linkClient) send(ctx context.Context, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.conn.Write(ctx, websocket.MessageText, data)
}

// next reads the next frame; it answers heartbeats and keeps what an error
// frame says.
func (l *linkClient) next(ctx context.Context) (frame, error) {
	for {
		kind, data, err := l.conn.Read(ctx)
		if err != nil {
			return frame{}, err
		}
		var f frame
		if err := json.Unmarshal(data, &f); err != nil || kind != websocket.MessageText {
			return frame{}, fmt.Errorf("not a frame: %q (%v)", data, err)
		}
		switch f.Type {
		case "heartbeat":
			if err := l.send(ctx, map[string]string{"type": "heartbeat"}); err != nil {
				return frame{}, err
			}
		case "error":
			l.told = f.Code
		default:
			return f, nil
		}
	}
}

// relayed acknowledges everything up to seq.
func (l *linkClient) relayed(ctx context.Context, seq int64) error {
	return l.send(ctx, map[string]any{"type": "relayed", "seq": seq})
}

// closeCode is why the server ended a link, -1 when it did not say.
func closeCode(err error) int { return int(websocket.CloseStatus(err)) }

// publicKeys are what /.well-known/jwks.json serves, by kid.
type publicKeys map[string]ed25519.PublicKey

func fetchPublicKeys(t *testing.T, s *server) publicKeys {
	t.Helper()
	var set struct {
		Keys []struct{ KTY, CRV, KID, X string }
	}
	if status := request(t, http.MethodGet, s.url("/.well-known/jwks.json"), "", "", &set); status != http.StatusOK {
		t.Fatalf("jwks.json: got status %d, want 200", status)
	}
	keys := publicKeys{}
	for _, k := range set.Keys {
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil || k.KTY != "OKP" || k.CRV != "Ed25519" || len(x) != ed25519.PublicKeySize {
			t.Fatalf("jwks.json holds %+v, want an Ed25519 key (%v)", k, err)
		}
		keys[k.KID] = x
	}
	return keys
}

// payload is what the signature of an events frame covers.
type payload struct {
	Room   string  `json:"room"`
	Log    string  `json:"log"`
	Events []event `json:"events"`
}

// open verifies an events frame and gives what is in it.
func (keys publicKeys) open(f frame) (p payload, err error) {
	key, ok := keys[f.KID]
	if !ok {
		return p, fmt.Errorf("a frame is signed with %q, which is not among the server's keys", f.KID)
	}
	sig, err := base64.RawURLEncoding.DecodeString(f.Sig)
	if err != nil || !ed25519.Verify(key, []byte(f.Payload), sig) {
		return p, fmt.Errorf("the signature of a frame does not verify: %.200s", f.Payload)
	}
	if err := json.Unmarshal([]byte(f.Payload), &p); err != nil {
		return p, fmt.Errorf("a payload is not JSON: %w", err)
	}
	if len(p.Events) == 0 {
		return p, fmt.Errorf("an events frame without events: %s", f.Payload)
	}
	return p, nil
}
