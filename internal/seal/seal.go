// Package seal signs the frames that carry a room's rows, and verifies them.
//
// A frame passes through the presenter's browser and a media server before it
// reaches viewers, and neither is ours. So the server signs the payload of
// every frame, and whoever receives one verifies it: nobody on the way can
// forge or alter a line.
//
// On the wire a frame carries three members for that: payload, JSON text held
// in a string so that its bytes survive every relay; sig, the Ed25519
// signature (RFC 8032) over exactly those bytes in base64url without padding
// (RFC 4648 section 5); and kid, the JWK thumbprint of the public key
// (RFC 7638, with the members that RFC 8037 section 2 names for OKP keys).
//
// The signature covers the payload alone, with no prefix that separates it
// from other uses of the key: browsers then verify with one call of WebCrypto
// on the bytes they hold. Two things keep a signature unambiguous instead. The
// payload itself names its room and its log, so a frame replayed elsewhere
// does not belong there. And the key signs nothing but frames: it is no TLS
// key, no token key, and must not be lent to anything else. What a signature
// does not say is that a frame is new; readers order rows by seq and drop what
// they have.
package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
)

// pemType is the PEM label of a PKCS#8 private key (RFC 7468 section 10).
const pemType = "PRIVATE KEY"

// b64 is base64url without padding. Strict refuses stray bits in the last
// character, so that a signature or key has one spelling only; line breaks,
// which the decoder skips all the same, are ruled out by the length.
var b64 = base64.RawURLEncoding.Strict()

// Key is a private key that signs frames. Make one with [NewKey], [ParseKey]
// or [LoadOrCreate]; the zero Key cannot sign. It is immutable and may be used
// concurrently. Printed with any verb of package fmt it shows its kid only.
type Key struct {
	private ed25519.PrivateKey
	kid     string
}

// NewKey makes a key from the system's randomness.
func NewKey() (Key, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Key{}, fmt.Errorf("seal: make a key: %w", err)
	}
	return newKey(private), nil
}

func newKey(private ed25519.PrivateKey) Key {
	k := Key{private: private}
	k.kid = k.Public().KID()
	return k
}

// ParseKey reads a key from one PEM block that holds an Ed25519 key as PKCS#8
// (RFC 5958, RFC 8410), unencrypted: what [Key.PEM] writes, and
// "openssl genpkey -algorithm ed25519". Errors name the setting seal.key and
// never contain the key.
func ParseKey(data []byte) (Key, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		return Key{}, errors.New("seal.key: no PEM block found; want -----BEGIN PRIVATE KEY-----")
	}
	if extra, _ := pem.Decode(rest); extra != nil {
		return Key{}, errors.New("seal.key: more than one PEM block; want the private key alone")
	}
	switch block.Type {
	case pemType:
	case "ENCRYPTED PRIVATE KEY":
		return Key{}, errors.New("seal.key: the key is encrypted; decrypt it with: openssl pkcs8 -topk8 -nocrypt")
	default:
		return Key{}, fmt.Errorf("seal.key: the PEM block is a %q; want PRIVATE KEY (PKCS#8)", block.Type)
	}
	// The parser's own error may quote what it read, and that is a secret.
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, errors.New("seal.key: the PEM block is not a PKCS#8 key")
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("seal.key: want an Ed25519 key, not %T; make one with: openssl genpkey -algorithm ed25519", parsed)
	}
	return newKey(private), nil
}

// PEM is the key as unencrypted PKCS#8 PEM. It is the secret itself.
func (k Key) PEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		panic("seal: an Ed25519 key did not marshal: " + err.Error())
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
}

// KID is the RFC 7638 thumbprint of the public key, 43 characters.
func (k Key) KID() string { return k.kid }

// Public is the public half of the key.
func (k Key) Public() PublicKey {
	return PublicKey(k.private.Public().(ed25519.PublicKey))
}

// Sign signs a payload's bytes: 86 characters of base64url. The same payload
// always gives the same signature, so that every node that holds the key
// builds the same frame.
func (k Key) Sign(payload []byte) (sig string) {
	return b64.EncodeToString(ed25519.Sign(k.private, payload))
}

// Format keeps the private key out of logs: without it %+v and %x would print
// the unexported field.
func (k Key) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "seal.Key("+k.kid+")")
}

// PublicKey is an Ed25519 public key as RFC 8032 section 5.1.5 encodes it.
type PublicKey [ed25519.PublicKeySize]byte

// KID is the RFC 7638 thumbprint of the key, 43 characters.
func (p PublicKey) KID() string {
	// Section 3 wants the required members only, sorted, with no white space.
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + p.x() + `"}`))
	return b64.EncodeToString(sum[:])
}

// x is the JWK member of that name.
func (p PublicKey) x() string { return b64.EncodeToString(p[:]) }
