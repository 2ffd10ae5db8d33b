package token

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// minSecret is the length of HS256's hash in bytes, the least that RFC 7518
// section 3.2 allows for its key.
const minSecret = 32

// ParseSecret reads a secret as settings hold it. Encoding is "raw", the bytes
// of s as they are, or "base64", in either alphabet of RFC 4648, with or
// without padding, white space around it ignored. JWT libraries differ in which
// of the two they take a configured secret for.
//
// A secret has at least 32 bytes. Errors contain no part of s, and leave it to
// the caller to name the setting that s comes from.
func ParseSecret(s, encoding string) ([]byte, error) {
	secret := []byte(s)
	switch encoding {
	case "raw":
	case "base64":
		s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimSpace(s))
		enc := base64.RawStdEncoding
		if strings.HasSuffix(s, "=") {
			enc = base64.StdEncoding
		}
		var err error
		if secret, err = enc.DecodeString(s); err != nil {
			return nil, fmt.Errorf("secret is not Base64: %w", err) // tells the place only
		}
	default:
		return nil, fmt.Errorf("token.secret_encoding: want raw or base64, not %q", encoding)
	}
	if err := checkSecret(secret); err != nil {
		return nil, err
	}
	return secret, nil
}

func checkSecret(secret []byte) error {
	// A public key is no secret, and a private one is not for us.
	if bytes.Contains(secret, []byte("-----BEGIN ")) {
		return errors.New("secret is PEM, so it is no secret of HS256; public keys belong into token.public_keys")
	}
	if len(secret) < minSecret {
		return fmt.Errorf("secret has %d bytes after decoding; HS256 needs at least %d", len(secret), minSecret)
	}
	return nil
}

// sameKey reports whether two secrets are one key to HMAC, which pads short
// ones with zeros and hashes long ones: comparing their bytes is not enough.
func sameKey(a, b []byte) bool {
	return hmac.Equal(hmac.New(sha256.New, a).Sum(nil), hmac.New(sha256.New, b).Sum(nil))
}
