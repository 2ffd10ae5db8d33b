package seal

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// The key of RFC 8032 section 7.1 test 1 and of RFC 8037 appendix A.
const (
	rfcSeed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
	rfcX    = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	rfcKID  = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("hex: %v", err)
	}
	return b
}

func keyFromSeed(t testing.TB, seed string) Key {
	t.Helper()
	return newKey(ed25519.NewKeyFromSeed(unhex(t, seed)))
}

func mustKey(t testing.TB) Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatalf("NewKey: %v", err)
	}
	return k
}

func TestSignRFC8032(t *testing.T) {
	// Section 7.1, tests 1 to 3.
	tests := []struct{ name, seed, public, message, sig string }{
		{"test 1", rfcSeed,
			"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
		{"test 2", "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
			"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
			"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
		{"test 3", "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
			"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
			"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			k := keyFromSeed(t, tc.seed)
			public := k.Public()
			if got, want := hex.EncodeToString(public[:]), tc.public; got != want {
				t.Errorf("public key: got %s, want %s", got, want)
			}
			got := k.Sign(unhex(t, tc.message))
			want := base64.RawURLEncoding.EncodeToString(unhex(t, tc.sig))
			if got != want {
				t.Errorf("signature: got %s, want %s", got, want)
			}
			if err := NewKeySet(public).Verify(k.KID(), want, unhex(t, tc.message)); err != nil {
				t.Errorf("Verify: got %v, want nil", err)
			}
		})
	}
}

func TestSignRFC8037(t *testing.T) {
	// Appendix A.4 signs these bytes, and writes the signature as we do.
	k := keyFromSeed(t, rfcSeed)
	got := k.Sign([]byte("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"))
	want := "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
	if got != want {
		t.Errorf("signature: got %s, want %s", got, want)
	}
}

func TestKIDRFC8037(t *testing.T) {
	// Appendix A.3.
	k := keyFromSeed(t, rfcSeed)
	if got, want := k.Public().x(), rfcX; got != want {
		t.Errorf("x: got %s, want %s", got, want)
	}
	if got, want := k.KID(), rfcKID; got != want {
		t.Errorf("Key.KID: got %s, want %s", got, want)
	}
	if got, want := k.Public().KID(), rfcKID; got != want {
		t.Errorf("PublicKey.KID: got %s, want %s", got, want)
	}
}

func TestVerifyAlterations(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	k, other := mustKey(t), mustKey(t)
	set := NewKeySet(other.Public(), k.Public())
	payload := []byte(`{"room":"7","log":"01JA","events":[{"seq":1,"kind":"message","text":"안녕하세요"}]}`)
	sig := k.Sign(payload)
	if err := set.Verify(k.KID(), sig, payload); err != nil {
		t.Fatalf("Verify unaltered: got %v, want nil", err)
	}

	for i := range len(payload) * 8 {
		altered := bytes.Clone(payload)
		altered[i/8] ^= 1 << (i % 8)
		if err := set.Verify(k.KID(), sig, altered); !errors.Is(err, ErrBadSignature) {
			t.Errorf("payload with bit %d flipped: got %v, want ErrBadSignature", i, err)
		}
	}
	// Every character, also the last, which carries four bits that mean
	// nothing to a lenient decoder.
	for i := range sig {
		next := alphabet[(strings.IndexByte(alphabet, sig[i])+1)%len(alphabet)]
		altered := sig[:i] + string(next) + sig[i+1:]
		if err := set.Verify(k.KID(), altered, payload); !errors.Is(err, ErrBadSignature) {
			t.Errorf("signature with character %d replaced: got %v, want ErrBadSignature", i, err)
		}
	}

	raw, err := base64.RawURLEncoding.DecodeString(sig)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, kid, sig string
		payload        []byte
		want           error
	}{
		{"unknown kid", mustKey(t).KID(), sig, payload, ErrUnknownKey},
		{"no kid", "", sig, payload, ErrUnknownKey},
		{"another key's kid", other.KID(), sig, payload, ErrBadSignature},
		{"another key's signature", k.KID(), other.Sign(payload), payload, ErrBadSignature},
		{"no signature", k.KID(), "", payload, ErrBadSignature},
		{"short signature", k.KID(), sig[:85], payload, ErrBadSignature},
		{"long signature", k.KID(), sig + "A", payload, ErrBadSignature},
		{"padded", k.KID(), sig + "==", payload, ErrBadSignature},
		{"line break at the end", k.KID(), sig + "\n", payload, ErrBadSignature},
		{"line break for a character", k.KID(), sig[:85] + "\n", payload, ErrBadSignature},
		{"hex", k.KID(), hex.EncodeToString(raw), payload, ErrBadSignature},
		{"no payload", k.KID(), sig, nil, ErrBadSignature},
		{"white space behind the payload", k.KID(), sig, append(bytes.Clone(payload), '\n'), ErrBadSignature},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := set.Verify(tc.kid, tc.sig, tc.payload); !errors.Is(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	if got := (KeySet{}).Verify(k.KID(), sig, payload); !errors.Is(got, ErrUnknownKey) {
		t.Errorf("empty set: got %v, want ErrUnknownKey", got)
	}
}

// A signature's last character holds two bits of signature and four stray
// ones; only one of the sixteen spellings may pass.
func TestVerifyStrayBits(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	k := keyFromSeed(t, rfcSeed)
	payload := []byte("한마디")
	sig := k.Sign(payload)
	passed := 0
	for _, c := range alphabet {
		if NewKeySet(k.Public()).Verify(k.KID(), sig[:85]+string(c), payload) == nil {
			passed++
		}
	}
	if got, want := passed, 1; got != want {
		t.Errorf("last characters that pass: got %d, want %d", got, want)
	}
}

func TestPEMRoundTrip(t *testing.T) {
	k := mustKey(t)
	back, err := ParseKey(k.PEM())
	if err != nil {
		t.Fatalf("ParseKey(PEM()): %v", err)
	}
	if got, want := back.KID(), k.KID(); got != want {
		t.Errorf("kid: got %s, want %s", got, want)
	}
	if got, want := back.Sign([]byte("x")), k.Sign([]byte("x")); got != want {
		t.Errorf("signature: got %s, want %s", got, want)
	}
}

// What "openssl genpkey -algorithm ed25519 -outform PEM" writes for the key of
// the RFCs (RFC 8410 section 10.3 has the same shape).
func TestParseKeyOpenSSL(t *testing.T) {
	k, err := ParseKey([]byte("-----BEGIN PRIVATE KEY-----\n" +
		"MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n" +
		"-----END PRIVATE KEY-----\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := k.KID(), rfcKID; got != want {
		t.Errorf("kid: got %s, want %s", got, want)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	k := mustKey(t)
	public := k.Public()
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(public[:]))
	if err != nil {
		t.Fatal(err)
	}
	block := func(label string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
	}
	tests := []struct {
		name string
		pem  []byte
		want string // in the error
	}{
		{"empty", nil, "no PEM block"},
		{"no PEM", []byte("correct horse battery staple"), "no PEM block"},
		{"cut short", k.PEM()[:60], "no PEM block"},
		{"not PKCS#8", block("PRIVATE KEY", []byte("secret bytes")), "not a PKCS#8 key"},
		{"seed alone", block("PRIVATE KEY", k.private.Seed()), "not a PKCS#8 key"},
		{"another algorithm", block("PRIVATE KEY", ecDER), "want an Ed25519 key, not *ecdsa.PrivateKey"},
		{"public key", block("PUBLIC KEY", publicDER), `"PUBLIC KEY"`},
		{"OpenSSH's own format", block("OPENSSH PRIVATE KEY", []byte("x")), `"OPENSSH PRIVATE KEY"`},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", []byte("x")), "the key is encrypted"},
		{"two keys", append(k.PEM(), mustKey(t).PEM()...), "more than one"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseKey(tc.pem)
			if err == nil {
				t.Fatal("got no error, want one")
			}
			if !strings.HasPrefix(err.Error(), "seal.key: ") || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want it to begin with seal.key and say %q", err, tc.want)
			}
		})
	}
}

func TestKeyPrintsNoSecret(t *testing.T) {
	k := keyFromSeed(t, rfcSeed)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for what, v := range map[string]any{"key": k, "pointer": &k, "member": struct{ K Key }{k}} {
			if got := fmt.Sprintf(verb, v); !strings.Contains(got, "seal.Key("+rfcKID+")") || strings.Contains(got, "157 97") || strings.Contains(got, "9d61") {
				t.Errorf("%s of a %s: got %q, want the kid alone", verb, what, got)
			}
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	k := mustKey(t)
	set := NewKeySet(k.Public())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			payload := fmt.Appendf(nil, "payload %d", i)
			if err := set.Verify(k.KID(), k.Sign(payload), payload); err != nil {
				t.Errorf("goroutine %d: got %v, want nil", i, err)
			}
		})
	}
	wg.Wait()
}

// A frame is at most 14 KiB; one line is about 300 bytes.
func BenchmarkSign(b *testing.B) {
	k := mustKey(b)
	for _, size := range []int{300, 14 << 10} {
		payload := bytes.Repeat([]byte("x"), size)
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.Sign(payload)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	k := mustKey(b)
	set := NewKeySet(k.Public())
	for _, size := range []int{300, 14 << 10} {
		payload := bytes.Repeat([]byte("x"), size)
		sig := k.Sign(payload)
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := set.Verify(k.KID(), sig, payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
