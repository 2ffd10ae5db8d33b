package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hanmadi/hanmadi/internal/chat"
)

const (
	// minRSA is what RFC 7518 section 3.3 asks for. The work of verifying grows
	// with the square of the bits, and beyond maxRSA nobody has a reason.
	minRSA, maxRSA = 2048, 8192

	// maxPEM bounds how often a forged token is tried.
	maxPEM = 16
)

// algorithms are those that a key can have.
var algorithms = []string{
	jwt.SigningMethodHS256.Alg(), jwt.SigningMethodRS256.Alg(), jwt.SigningMethodES256.Alg(), jwt.SigningMethodEdDSA.Alg(),
}

// key verifies the tokens of one algorithm: the one that method stands for,
// never what a token asks for. Otherwise a public key could be made to serve as
// an HMAC secret, which everybody knows.
type key struct {
	id       string // kid; "" where it has none: secrets, PEM, some of a set's
	method   jwt.SigningMethod
	material any       // what method.Verify takes
	role     chat.Role // of whoever shows what it signed
}

// ring is keys in the order they are tried. It is not written to once made.
type ring []key

// find returns the key that verifies a token: one of its algorithm, and of its
// kid where both have one. Its error is errSignature if there was one to try,
// else errMethod.
func (r ring) find(t unverified) (key, error) {
	err := errMethod
	for _, k := range r {
		if k.method.Alg() != t.alg || k.id != "" && t.kid != "" && k.id != t.kid {
			continue
		}
		if k.method.Verify(t.text, t.sig, k.material) == nil {
			return k, nil
		}
		err = errSignature
	}
	return key{}, err
}

// knows reports whether there is nothing to be learnt about a kid.
func (r ring) knows(kid string) bool {
	for _, k := range r {
		if k.id == kid {
			return true
		}
	}
	return kid == ""
}

// publicKey makes a key of what the packages of crypto call a public key, of
// the kinds and sizes that we take.
func publicKey(material any) (key, error) {
	switch k := material.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSA || bits > maxRSA {
			return key{}, fmt.Errorf("RSA key has %d bits; %d to %d are taken", bits, minRSA, maxRSA)
		}
		// With an exponent of 1 everything would be its own signature.
		if k.E < 3 || k.E > math.MaxInt32 || k.E%2 == 0 || k.N.Bit(0) == 0 {
			return key{}, errors.New("RSA key is not one: its exponent or modulus is out of range")
		}
		return key{method: jwt.SigningMethodRS256, material: k}, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return key{}, fmt.Errorf("key is on the curve %s; only P-256 is taken", k.Curve.Params().Name)
		}
		return key{method: jwt.SigningMethodES256, material: k}, nil
	case ed25519.PublicKey:
		return key{method: jwt.SigningMethodEdDSA, material: k}, nil
	default:
		return key{}, errors.New("key is none of RSA, P-256 and Ed25519")
	}
}

// parsePEM reads the setting public_keys. Text before, between and after blocks
// is skipped, as PEM has it.
func parsePEM(data []byte) (ring, error) {
	// A block that is not well formed would be skipped like other text.
	blocks := bytes.Count(data, []byte("-----BEGIN "))
	if blocks > maxPEM {
		return nil, fmt.Errorf("%d PEM blocks; %d at most", blocks, maxPEM)
	}
	if blocks == 0 && len(data) > 0 {
		return nil, errors.New("not PEM: no line begins a block (-----BEGIN PUBLIC KEY-----)")
	}
	var keys ring
	for i := range blocks {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return nil, fmt.Errorf("%d of %d PEM blocks are damaged", blocks-i, blocks)
		}
		k, err := blockKey(b)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", i+1, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func blockKey(b *pem.Block) (key, error) {
	var material any
	var err error
	switch {
	case b.Type == "PUBLIC KEY":
		material, err = x509.ParsePKIXPublicKey(b.Bytes)
	case b.Type == "RSA PUBLIC KEY":
		material, err = x509.ParsePKCS1PublicKey(b.Bytes)
	case b.Type == "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(b.Bytes); err == nil {
			material = cert.PublicKey
		}
	case strings.HasSuffix(b.Type, "PRIVATE KEY"):
		return key{}, errors.New("this is a private key, with which anybody who reads this server's settings could sign tokens; " +
			"leave it where tokens are made, and put its public key here (openssl pkey -pubout)")
	default:
		return key{}, fmt.Errorf("want PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE, not %.64q", b.Type)
	}
	if err != nil {
		return key{}, fmt.Errorf("%s cannot be read: %w", b.Type, err)
	}
	return publicKey(material)
}
