package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// secretFiles are settings that are kept in files, for a server.
type secretFiles struct {
	t   *testing.T
	dir string
	s   *server
}

func (f *secretFiles) write(name, content string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// reread sends SIGHUP and waits until the program says that it has acted.
func (f *secretFiles) reread(want string) {
	f.t.Helper()
	before := strings.Count(f.s.err.String(), want)
	f.s.signal(syscall.SIGHUP)
	eventually(f.t, want, func() bool { return strings.Count(f.s.err.String(), want) > before })
}

// wantTokens says whether tokens hold: of the first secret, of the second, and of
// the public key.
func (f *secretFiles) wantTokens(when string, want [3]bool, tokens [3]string) {
	f.t.Helper()
	for i, token := range tokens {
		status := request(f.t, http.MethodPost, f.s.url("/v1/rooms/7/messages"), token, fmt.Sprintf(`{"text":"%s %d"}`, when, i), nil)
		expected := http.StatusUnauthorized
		if want[i] {
			expected = http.StatusCreated
		}
		if status != expected {
			f.t.Errorf("%s, token %d: got status %d, want %d", when, i, status, expected)
		}
	}
}

// A secret is exchanged with no moment in which a good token is refused, and
// what cannot be read changes nothing.
func TestKeysAreReadAgain(t *testing.T) {
	f := &secretFiles{t: t, dir: t.TempDir()}
	first, second := strings.Repeat("first ", 8), strings.Repeat("second ", 8)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	keys := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if der, err = x509.MarshalPKIXPublicKey(other); err != nil {
		t.Fatal(err)
	}
	otherKeys := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	signer := &issuer{kid: "k", sign: private}
	tokens := [3]string{mintWith(t, first, "42", ""), mintWith(t, second, "42", ""), signer.token(t, "42", "")}

	f.write("secret", first)
	f.write("previous", first)
	f.write("keys.pem", otherKeys)
	f.s = startServer(t, "serve", "HANMADI_TOKEN_SECRET=", "HANMADI_TOKEN_SECRET_FILE="+filepath.Join(f.dir, "secret"),
		"HANMADI_TOKEN_SECRET_PREVIOUS_FILE="+filepath.Join(f.dir, "previous"), "HANMADI_TOKEN_PUBLIC_KEYS="+filepath.Join(f.dir, "keys.pem"))
	f.s.openBroadcast("7")
	const done, failed = "keys of tokens read again", "keys of tokens are as before"

	f.wantTokens("at the start", [3]bool{true, false, false}, tokens)
	f.write("secret", second)
	f.write("keys.pem", keys)
	f.reread(done)
	f.wantTokens("while both hold", [3]bool{true, true, true}, tokens)
	f.write("secret", "short")
	f.reread(failed)
	f.write("secret", second)
	f.write("keys.pem", "not PEM")
	f.reread(failed)
	f.wantTokens("after files that cannot be used", [3]bool{true, true, true}, tokens)
	f.write("previous", second)
	f.write("keys.pem", otherKeys)
	f.reread(done)
	f.wantTokens("when the old ones are gone", [3]bool{false, true, false}, tokens)
	for _, secret := range []string{first, second} {
		if strings.Contains(f.s.err.String(), strings.TrimSpace(secret)) {
			t.Error("a secret was written to the log")
		}
	}
}

// With presenters: role only whom the platform says may open a link; an operator
// is who its issuer says, and nobody by a claim.
func TestRolesFromThePlatform(t *testing.T) {
	i := newIssuer(t)
	s := startServer(t, "serve", "HANMADI_TOKEN_SECRET=", "HANMADI_TOKEN_JWKS_URL=http://"+i.address+"/jwks.json",
		"HANMADI_TOKEN_CLAIM_ROLE=roles", "HANMADI_BROADCAST_PRESENTERS=role", "HANMADI_BROADCAST_PRESENTER_ROLE=streamer",
		"HANMADI_TOKEN_OPERATOR_ISSUER=https://backend.example", "HANMADI_TOKEN_OPERATOR_AUDIENCE=hanmadi")
	for _, c := range []struct {
		name   string
		claims map[string]any
		link   bool
		puts   int
	}{
		{"a viewer", map[string]any{"userIdx": 7}, false, 403},
		{"a streamer", map[string]any{"userIdx": 7, "roles": []string{"fan", "streamer"}}, true, 403},
		{"a streamer by one string", map[string]any{"userIdx": 7, "roles": "streamer"}, true, 403},
		{"another claim", map[string]any{"userIdx": 7, "role": "streamer", "Roles": "streamer"}, false, 403},
		{"an operator by claims alone", map[string]any{"userIdx": 7, "roles": []string{"operator", "admin"}, "role": "operator"}, false, 403},
		{"the operator's issuer, another audience", map[string]any{"userIdx": 7, "iss": "https://backend.example", "aud": "shop"}, false, 403},
		{"the operator", map[string]any{"userIdx": 7, "iss": "https://backend.example", "aud": []string{"hanmadi"}}, false, 201},
	} {
		token := i.tokenOf(t, c.claims)
		l, err := dialLink(t.Context(), s.listen, startFrame{Token: token})
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.next(t.Context())
		_ = l.conn.CloseNow() // with or without a goodbye
		if linked := err == nil && f.Type == "welcome"; linked != c.link || !linked && (closeCode(err) != 4503 || l.told != "forbidden") {
			t.Errorf("%s: got %+v, closed with %d %s; want a link: %t", c.name, f, closeCode(err), l.told, c.link)
		}
		status := request(t, http.MethodPut, s.adminURL("/v1/rooms/9/broadcast"), token, `{"id":"b"}`, nil)
		if status != c.puts {
			t.Errorf("%s: opening a broadcast as an operator: got status %d, want %d", c.name, status, c.puts)
		}
	}
}
