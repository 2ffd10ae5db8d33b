package token

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

func TestParseSecret(t *testing.T) {
	// 34 bytes, so that padding is needed, whose Base64 has + and / in it.
	secret := append([]byte("\xfb\xef\xbe\xff\xff\xff"), bytes.Repeat([]byte("s"), 28)...)
	std, url := base64.StdEncoding.EncodeToString(secret), base64.URLEncoding.EncodeToString(secret)
	if !strings.HasPrefix(std, "++++////") || !strings.HasSuffix(std, "==") {
		t.Fatalf("%q does not test both alphabets and padding", std)
	}
	tests := []struct {
		name, s, encoding string
		want              []byte
		wantErr           string
	}{
		{"raw", string(secret), "raw", secret, ""},
		{"raw that looks like Base64", std, "raw", []byte(std), ""},
		{"raw with white space", " " + string(secret) + "\n", "raw", []byte(" " + string(secret) + "\n"), ""},
		{"raw of 32 bytes", strings.Repeat("x", 32), "raw", bytes.Repeat([]byte("x"), 32), ""},
		{"raw of 31 bytes", strings.Repeat("x", 31), "raw", nil, "31 bytes"},
		{"std, padded", std, "base64", secret, ""},
		{"std, not padded", strings.TrimRight(std, "="), "base64", secret, ""},
		{"url, padded", url, "base64", secret, ""},
		{"url, not padded", strings.TrimRight(url, "="), "base64", secret, ""},
		{"with a line break behind", std + "\n", "base64", secret, ""},
		{"half padded", strings.TrimSuffix(std, "="), "base64", nil, "not Base64"},
		{"not Base64", "MARK" + strings.Repeat("!", 60), "base64", nil, "not Base64"},
		{"32 characters of Base64", strings.Repeat("MARK", 8), "base64", nil, "24 bytes"},
		{"empty", "", "base64", nil, "0 bytes"},
		{"unknown encoding", string(secret), "hex", nil, `token.secret_encoding: want raw or base64, not "hex"`},
		{"no encoding", string(secret), "", nil, "token.secret_encoding"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseSecret(tc.s, tc.encoding)
			if !bytes.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			switch {
			case tc.wantErr == "" && err != nil:
				t.Errorf("got error %v, want none", err)
			case tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)):
				t.Errorf("got error %v, want one with %q", err, tc.wantErr)
			case err != nil && strings.Contains(err.Error(), "MARK"):
				t.Errorf("error %q tells the secret", err)
			}
		})
	}
}

// The platform's libraries disagree on what a configured secret is; the same
// text means two keys.
func TestSecretEncodings(t *testing.T) {
	text := base64.StdEncoding.EncodeToString([]byte("what the other library decodes it to"))
	for _, minter := range []string{"raw", "base64"} {
		for _, verifier := range []string{"raw", "base64"} {
			t.Run(minter+" to "+verifier, func(t *testing.T) {
				theirs, err := ParseSecret(text, minter)
				if err != nil {
					t.Fatal(err)
				}
				ours, err := ParseSecret(text, verifier)
				if err != nil {
					t.Fatal(err)
				}
				raw := hs256(theirs, `{"alg":"HS256"}`, `{"sub":"7","exp":221845392000}`)
				_, err = newVerifier(t, Config{Secret: ours}).Verify(raw)
				if minter != verifier {
					wantRefusal(t, err, chat.TokenInvalid, raw)
				} else if err != nil {
					t.Errorf("got %v, want no error", err)
				}
			})
		}
	}
}
