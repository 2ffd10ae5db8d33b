package seal

import (
	"fmt"
	"strings"
	"testing"
)

func TestKeySetJSON(t *testing.T) {
	k := keyFromSeed(t, rfcSeed)
	got := string(NewKeySet(k.Public(), k.Public()).JSON())
	want := `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + rfcX + `","kid":"` + rfcKID + `","use":"sig","alg":"EdDSA"}]}`
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got, want := string(KeySet{}.JSON()), `{"keys":[]}`; got != want {
		t.Errorf("empty set: got %s, want %s", got, want)
	}
}

func TestKeySetRoundTrip(t *testing.T) {
	old, current := mustKey(t), mustKey(t)
	set, err := ParseKeySet(NewKeySet(current.Public(), old.Public()).JSON())
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]Key{"old": old, "current": current} {
		if err := set.Verify(k.KID(), k.Sign([]byte("line")), []byte("line")); err != nil {
			t.Errorf("%s key: got %v, want nil", name, err)
		}
	}
}

func TestParseKeySetAccepts(t *testing.T) {
	const (
		x       = `"x":"` + rfcX + `"`
		minimal = `{"kty":"OKP","crv":"Ed25519",` + x + `}`
		ec      = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	)
	// One key of ours each; the others are skipped.
	tests := map[string]string{
		"required members only":     `{"keys":[` + minimal + `]}`,
		"twice":                     `{"keys":[` + minimal + `,` + minimal + `]}`,
		"members of others":         `{"next":"…","keys":[{"kty":"OKP","crv":"Ed25519",` + x + `,"x5t":"…","created":1}]}`,
		"with kid":                  `{"keys":[{"kty":"OKP","crv":"Ed25519",` + x + `,"kid":"` + rfcKID + `"}]}`,
		"algorithm's newer name":    `{"keys":[{"kty":"OKP","crv":"Ed25519",` + x + `,"alg":"Ed25519"}]}`,
		"key_ops verify":            `{"keys":[{"kty":"OKP","crv":"Ed25519",` + x + `,"key_ops":["verify"]}]}`,
		"beside an EC key":          `{"keys":[` + ec + `,` + minimal + `]}`,
		"beside an X25519 key":      `{"keys":[{"kty":"OKP","crv":"X25519","x":"?"},` + minimal + `]}`,
		"beside an encryption key":  `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"?","use":"enc"},` + minimal + `]}`,
		"beside another algorithm":  `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"?","alg":"ES256"},` + minimal + `]}`,
		"beside a signing-only key": `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"?","key_ops":["sign"]},` + minimal + `]}`,
		"beside upper-case members": `{"keys":[{"KTY":"OKP","CRV":"Ed25519","X":"?"},` + minimal + `]}`,
		"beside null and empty":     `{"keys":[null,{},` + minimal + `]}`,
		"beside members mistyped":   `{"keys":[{"kty":7,"crv":[]},` + minimal + `]}`,
		"Keys, which is not keys":   `{"keys":[` + minimal + `],"Keys":[]}`,
		"32 keys":                   `{"keys":[` + strings.Repeat(`{},`, 31) + minimal + `]}`,
	}
	k := keyFromSeed(t, rfcSeed)
	want := string(NewKeySet(k.Public()).JSON())
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			set, err := ParseKeySet([]byte(data))
			if err != nil {
				t.Fatalf("got error %v, want none", err)
			}
			if got := string(set.JSON()); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if err := set.Verify(rfcKID, k.Sign([]byte("line")), []byte("line")); err != nil {
				t.Errorf("Verify: got %v, want nil", err)
			}
		})
	}
}

func TestParseKeySetRefuses(t *testing.T) {
	key := func(members string) string { return `{"keys":[{"kty":"OKP","crv":"Ed25519",` + members + `}]}` }
	valid := key(`"x":"` + rfcX + `"`)
	tests := []struct{ name, data, want string }{
		{"empty", ``, "not a JSON object"},
		{"not JSON", `<html>`, "not a JSON object"},
		{"an array", `[]`, "not a JSON object"},
		{"no keys", `{}`, `no "keys"`},
		{"keys null", `{"keys":null}`, "no Ed25519 key"},
		{"keys a string", `{"keys":"x"}`, `no "keys"`},
		{"key a string", `{"keys":["x"]}`, `no "keys"`},
		{"KEYS", `{"KEYS":[{"kty":"OKP","crv":"Ed25519","x":"` + rfcX + `"}]}`, `no "keys"`},
		{"none", `{"keys":[]}`, "no Ed25519 key"},
		{"only other kinds", `{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`, "no Ed25519 key"},
		{"two sets", valid + valid, "not a JSON object"},
		{"too many", `{"keys":[` + strings.Repeat(`{},`, 32) + `{}]}`, "33 keys"},
		{"too large", valid + strings.Repeat(" ", maxSetBytes), "bytes"},
		{"private", key(`"x":"` + rfcX + `","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"`), "private key"},
		{"no x", key(`"use":"sig"`), `"x"`},
		{"X", key(`"X":"` + rfcX + `"`), `"x"`},
		{"x a number", key(`"x":7`), `"x"`},
		{"x short", key(`"x":"` + rfcX[:42] + `"`), `"x"`},
		{"x long", key(`"x":"` + rfcX + `A"`), `"x"`},
		{"x padded", key(`"x":"` + rfcX + `="`), `"x"`},
		{"x with a line break", key(`"x":"` + rfcX[:42] + `\n"`), `"x"`},
		{"x of the other alphabet", key(`"x":"` + strings.Replace(rfcX, "_", "/", 1) + `"`), `"x"`},
		{"x with stray bits", key(`"x":"` + rfcX[:42] + `p"`), `"x"`},
		{"kid of another", key(`"x":"` + rfcX + `","kid":"7"`), `"kid"`},
		{"kid a number", key(`"x":"` + rfcX + `","kid":7`), `"kid"`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			set, err := ParseKeySet([]byte(tc.data))
			if err == nil {
				t.Fatalf("got %s, want an error", set.JSON())
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want it to say %q", err, tc.want)
			}
		})
	}
}

// Whatever is accepted is within bounds, and reads back from what it writes.
func FuzzParseKeySet(f *testing.F) {
	k := keyFromSeed(f, rfcSeed)
	f.Add(NewKeySet(k.Public()).JSON())
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + rfcX + `"},{"kty":"EC"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + rfcX + `","key_ops":["verify"]}]}`))
	f.Add(fmt.Appendf(nil, `{"keys":[%s{}]}`, strings.Repeat(`{},`, 32)))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := ParseKeySet(data)
		if err != nil {
			return
		}
		if n := len(set.keys); n < 1 || n > maxSetKeys || n != len(set.byKID) {
			t.Fatalf("got %d keys, %d by kid; want 1 to %d of both", n, len(set.byKID), maxSetKeys)
		}
		again, err := ParseKeySet(set.JSON())
		if err != nil {
			t.Fatalf("its own JSON: got error %v, want none", err)
		}
		if got, want := string(again.JSON()), string(set.JSON()); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		for kid, p := range set.byKID {
			if got, want := kid, p.KID(); got != want {
				t.Fatalf("kid: got %s, want %s", got, want)
			}
		}
	})
}
