package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/hanmadi/hanmadi/internal/wire"
)

// maxSetKeys bounds a key set, and with it how often a forged token without kid
// is tried.
const maxSetKeys = 64

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
	var j jose.JSONWebKey
	if err := j.UnmarshalJSON(raw); err != nil {
		return key{}, errors.New("not a JWK that can be read")
	}
	var ops struct {
		KeyOps []string `json:"key_ops"` // which the library does not look at
	}
	switch {
	case json.Unmarshal(raw, &ops) != nil:
		return key{}, errors.New("not a JWK that can be read")
	case !j.IsPublic():
		// Whoever reads the set can sign with it.
		return key{}, errors.New("has a private part")
	case j.Use != "" && j.Use != "sig", ops.KeyOps != nil && !slices.Contains(ops.KeyOps, "verify"):
		return key{}, errors.New("not for verifying signatures")
	}
	k, err := publicKey(j.Key)
	if err != nil {
		return key{}, err
	}
	if own := k.method.Alg(); j.Algorithm != "" && j.Algorithm != own {
		return key{}, fmt.Errorf("its alg is not %s", own)
	}
	k.id = j.KeyID
	return k, nil
}
