package seal

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Bounds of a key set that comes from outside.
const (
	maxSetBytes = 64 << 10
	maxSetKeys  = 32
)

// The ways a signature can fail to verify. On ErrUnknownKey it is worth
// fetching the key set anew: the server may have a new key.
var (
	ErrUnknownKey   = errors.New("seal: no key with that kid")
	ErrBadSignature = errors.New("seal: signature does not verify")
)

// KeySet is public keys by kid. The zero KeySet is empty. It is immutable and
// may be used concurrently.
type KeySet struct {
	keys  []PublicKey // in the order given, each once
	byKID map[string]PublicKey
}

// NewKeySet makes a set of keys; a key given twice is kept once.
func NewKeySet(keys ...PublicKey) KeySet {
	s := KeySet{byKID: make(map[string]PublicKey, len(keys))}
	for _, p := range keys {
		kid := p.KID()
		if _, ok := s.byKID[kid]; ok {
			continue
		}
		s.byKID[kid] = p
		s.keys = append(s.keys, p)
	}
	return s
}

// jwk is a public key as JSON (RFC 7517 section 4, RFC 8037 section 2).
type jwk struct {
	KTY string `json:"kty"`
	CRV string `json:"crv"`
	X   string `json:"x"`
	KID string `json:"kid"`
	Use string `json:"use"`
	Alg string `json:"alg"`
}

// JSON is the set as a JWK Set (RFC 7517 section 5).
func (s KeySet) JSON() []byte {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: make([]jwk, 0, len(s.keys))}
	for _, p := range s.keys {
		set.Keys = append(set.Keys, jwk{KTY: "OKP", CRV: "Ed25519", X: p.x(), KID: p.KID(), Use: "sig", Alg: "EdDSA"})
	}
	data, err := json.Marshal(set)
	if err != nil {
		panic("seal: a struct of strings did not marshal: " + err.Error())
	}
	return data
}

// ParseKeySet reads a JWK Set of at most 64 KiB and 32 keys. Keys that are not
// for Ed25519 signatures are skipped, as RFC 7517 section 5 asks. It is an
// error when none is left, when an Ed25519 key is malformed, names a kid other
// than its thumbprint, or comes with its private half.
func ParseKeySet(data []byte) (KeySet, error) {
	if len(data) > maxSetBytes {
		return KeySet{}, fmt.Errorf("seal: key set of %d bytes; at most %d", len(data), maxSetBytes)
	}
	// Maps, not structs: encoding/json fills a struct's "x" from a member "X".
	var set map[string]json.RawMessage
	if err := json.Unmarshal(data, &set); err != nil {
		return KeySet{}, fmt.Errorf("seal: key set is not a JSON object: %w", err)
	}
	var members []map[string]json.RawMessage
	if err := json.Unmarshal(set["keys"], &members); err != nil {
		return KeySet{}, errors.New(`seal: key set has no "keys" that is an array of objects`)
	}
	if len(members) > maxSetKeys {
		return KeySet{}, fmt.Errorf("seal: key set has %d keys; at most %d", len(members), maxSetKeys)
	}
	var keys []PublicKey
	for i, m := range members {
		if !forEd25519(m) {
			continue
		}
		p, err := parseJWK(m)
		if err != nil {
			return KeySet{}, fmt.Errorf("seal: key %d of the set: %w", i, err)
		}
		keys = append(keys, p)
	}
	if len(keys) == 0 {
		return KeySet{}, errors.New("seal: key set has no Ed25519 key")
	}
	return NewKeySet(keys...), nil
}

// forEd25519 reports whether a JWK is meant for verifying Ed25519 signatures.
// use, alg and key_ops are optional and only ever exclude. "Ed25519" is the
// newer name of the algorithm (RFC 9864).
func forEd25519(m map[string]json.RawMessage) bool {
	if member(m, "kty") != "OKP" || member(m, "crv") != "Ed25519" {
		return false
	}
	if m["use"] != nil && member(m, "use") != "sig" {
		return false
	}
	if alg := member(m, "alg"); m["alg"] != nil && alg != "EdDSA" && alg != "Ed25519" {
		return false
	}
	var ops []string
	return m["key_ops"] == nil || json.Unmarshal(m["key_ops"], &ops) == nil && slices.Contains(ops, "verify")
}

func parseJWK(m map[string]json.RawMessage) (PublicKey, error) {
	if m["d"] != nil {
		return PublicKey{}, errors.New(`it holds a private key ("d"); publish the public half only, and replace the key`)
	}
	x := member(m, "x")
	if len(x) != b64.EncodedLen(ed25519.PublicKeySize) {
		return PublicKey{}, errors.New(`"x" is not 32 bytes of base64url without padding`)
	}
	raw, err := b64.DecodeString(x)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return PublicKey{}, errors.New(`"x" is not 32 bytes of base64url without padding`)
	}
	p := PublicKey(raw)
	// A kid that is always the thumbprint can never stand for two keys.
	if m["kid"] != nil && member(m, "kid") != p.KID() {
		return PublicKey{}, errors.New(`"kid" is not the key's RFC 7638 thumbprint`)
	}
	return p, nil
}

// member is a JWK's string of that name, "" where there is none.
func member(m map[string]json.RawMessage, name string) string {
	var s string
	if json.Unmarshal(m[name], &s) != nil {
		return ""
	}
	return s
}

// Verify checks a frame's signature over its payload. It returns nil,
// [ErrUnknownKey] or [ErrBadSignature]; a sig that is not base64url without
// padding, spelled the one way [Key.Sign] spells it, is a bad signature.
func (s KeySet) Verify(kid, sig string, payload []byte) error {
	p, ok := s.byKID[kid]
	if !ok {
		return ErrUnknownKey
	}
	if len(sig) != b64.EncodedLen(ed25519.SignatureSize) {
		return ErrBadSignature
	}
	raw, err := b64.DecodeString(sig)
	if err != nil || !ed25519.Verify(p[:], payload, raw) {
		return ErrBadSignature
	}
	return nil
}
