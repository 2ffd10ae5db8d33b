package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/hanmadi/hanmadi/internal/wire"
)

// maxSetKeys bounds a key set, and with it how often a forged token without kid
// is tried.
const maxSetKeys = 64

// jwk is a key of a set (RFC 7517 section 4, RFC 7518 section 6, RFC 8037).
type jwk struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Alg    string   `json:"alg"`
	Kid    string   `json:"kid"`
	Crv    string   `json:"crv"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	X      string   `json:"x"`
	Y      string   `json:"y"`

	// Each gives the private key away, or is a shared one.
	D   any `json:"d"`
	P   any `json:"p"`
	Q   any `json:"q"`
	DP  any `json:"dp"`
	DQ  any `json:"dq"`
	QI  any `json:"qi"`
	Oth any `json:"oth"`
	K   any `json:"k"`
}

func (j *jwk) private() bool {
	return slices.ContainsFunc([]any{j.D, j.P, j.Q, j.DP, j.DQ, j.QI, j.Oth, j.K}, func(part any) bool { return part != nil })
}

// parseSet reads a key set. Keys that are not for us (of another kind, for
// encryption, too short, private) are passed over, as RFC 7517 section 5 asks
// for: a platform's other services may need them. A set without a single key for
// us is an error all the same, for it is more likely a mistake than the wish
// that nobody can log in.
func parseSet(data []byte) (ring, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := wire.Decode(data, &set); err != nil {
		return nil, fmt.Errorf("not a key set: %s", wire.Reason(err))
	}
	if len(set.Keys) > maxSetKeys {
		return nil, fmt.Errorf("set has %d keys; %d at most", len(set.Keys), maxSetKeys)
	}
	var keys ring
	var skipped error // the first
	for i, raw := range set.Keys {
		k, err := parseKey(raw)
		if err == nil {
			keys = append(keys, k)
		} else if skipped == nil {
			skipped = fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	switch {
	case len(keys) > 0:
		return keys, nil
	case skipped != nil:
		return nil, fmt.Errorf("none of the set's %d keys can be used: %w", len(set.Keys), skipped)
	default:
		return nil, errors.New("set has no keys")
	}
}

func parseKey(raw json.RawMessage) (key, error) {
	var j jwk
	if json.Unmarshal(raw, &j) != nil {
		return key{}, errors.New("not a JWK")
	}
	switch {
	case j.private():
		// Whoever reads the set can sign with it.
		return key{}, errors.New("has a private part")
	case j.Use != "" && j.Use != "sig", j.KeyOps != nil && !slices.Contains(j.KeyOps, "verify"):
		return key{}, errors.New("not for verifying signatures")
	}
	material, err := j.material()
	if err != nil {
		return key{}, err
	}
	k, err := publicKey(material)
	if err != nil {
		return key{}, err
	}
	if own := k.method.Alg(); j.Alg != "" && j.Alg != own {
		return key{}, fmt.Errorf("its alg is not %s", own)
	}
	k.id = j.Kid
	return k, nil
}

// material is the key as the packages of crypto have it.
func (j *jwk) material() (any, error) {
	switch {
	case j.Kty == "RSA":
		n, err := decodeMember("n", j.N)
		if err != nil {
			return nil, err
		}
		e, err := decodeMember("e", j.E)
		if err != nil {
			return nil, err
		}
		if len(e) > 4 {
			return nil, errors.New("e is longer than 4 bytes")
		}
		exponent := binary.BigEndian.Uint32(append(make([]byte, 4-len(e)), e...))
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent)}, nil
	case j.Kty == "EC" && j.Crv == "P-256":
		x, err := decodeMember("x", j.X)
		if err != nil {
			return nil, err
		}
		y, err := decodeMember("y", j.Y)
		if err != nil {
			return nil, err
		}
		if len(x) != 32 || len(y) != 32 {
			return nil, errors.New("x and y are not 32 bytes each")
		}
		k, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, errors.New("x and y are not a point on P-256")
		}
		return k, nil
	case j.Kty == "OKP" && j.Crv == "Ed25519":
		x, err := decodeMember("x", j.X)
		if err != nil {
			return nil, err
		}
		if len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("x is not %d bytes", ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(x), nil
	default:
		return nil, errors.New("key is none of RSA, P-256 and Ed25519")
	}
}

func decodeMember(name, value string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%s is not base64url", name)
	}
	return b, nil
}
