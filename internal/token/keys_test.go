package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// privateKeys are made once: RSA's take long.
var privateKeys = sync.OnceValue(func() (k struct {
	rsa, rsaOther, rsaShort *rsa.PrivateKey
	ec, ecOther, p384       *ecdsa.PrivateKey
	ed, edOther             ed25519.PrivateKey
}) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var err error
	for size, list := range map[int][]**rsa.PrivateKey{2048: {&k.rsa, &k.rsaOther}, 1024: {&k.rsaShort}} {
		for _, p := range list {
			*p, err = rsa.GenerateKey(rand.Reader, size)
			must(err)
		}
	}
	for curve, list := range map[elliptic.Curve][]**ecdsa.PrivateKey{elliptic.P256(): {&k.ec, &k.ecOther}, elliptic.P384(): {&k.p384}} {
		for _, p := range list {
			*p, err = ecdsa.GenerateKey(curve, rand.Reader)
			must(err)
		}
	}
	for _, p := range []*ed25519.PrivateKey{&k.ed, &k.edOther} {
		_, *p, err = ed25519.GenerateKey(rand.Reader)
		must(err)
	}
	return k
})

// signWith signs any header and payload with SHA-256, or what Ed25519 does.
func signWith(k crypto.Signer, header, payload string) string {
	text := b64(header) + "." + b64(payload)
	digest := sha256.Sum256([]byte(text))
	var sig []byte
	var err error
	switch k := k.(type) {
	case *rsa.PrivateKey:
		sig, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, digest[:])
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, k, digest[:]); err == nil {
			size := (k.Curve.Params().BitSize + 7) / 8
			sig = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(text))
	}
	if err != nil {
		panic(err)
	}
	return text + "." + b64(string(sig))
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func publicPEM(k crypto.Signer) string {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		panic(err)
	}
	return pemOf("PUBLIC KEY", der)
}

func certificatePEM(k crypto.Signer) string {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		panic(err)
	}
	return pemOf("CERTIFICATE", der)
}

// jwkOf writes a key as a member of a set; extra is more of its members.
func jwkOf(public any, kid, extra string) string {
	members := ""
	switch k := public.(type) {
	case *rsa.PublicKey:
		members = fmt.Sprintf(`"kty":"RSA","n":"%s","e":"%s"`, b64(string(k.N.Bytes())), b64(string(big.NewInt(int64(k.E)).Bytes())))
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			panic(err)
		}
		size := len(point) / 2
		members = fmt.Sprintf(`"kty":"EC","crv":"%s","x":"%s","y":"%s"`, k.Curve.Params().Name, b64(string(point[1:1+size])), b64(string(point[1+size:])))
	case ed25519.PublicKey:
		members = fmt.Sprintf(`"kty":"OKP","crv":"Ed25519","x":"%s"`, b64(string(k)))
	}
	if kid != "" {
		members += `,"kid":"` + kid + `"`
	}
	return "{" + members + extra + "}"
}

func setOf(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// payload7 is the payload of user 7.
var payload7 = fmt.Sprintf(`{"sub":"7","nickname":"MARK","exp":%d}`, farOff)

func wantUser7(t testing.TB, v *Verifier, raw string) {
	t.Helper()
	u, err := v.Verify(raw)
	if err != nil || u.ID != "7" || u.Role != "" {
		t.Errorf("got user %q, role %q, error %v; want user 7 without a role", u.ID, u.Role, err)
	}
}

// A key of each kind, from where it can come.
func TestAlgorithms(t *testing.T) {
	k := privateKeys()
	third, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		alg        string
		key, other crypto.Signer
	}{{"RS256", k.rsa, k.rsaOther}, {"ES256", k.ec, k.ecOther}, {"EdDSA", k.ed, k.edOther}} {
		good := signWith(tc.key, `{"alg":"`+tc.alg+`"}`, payload7)
		forged := signWith(tc.other, `{"alg":"`+tc.alg+`"}`, payload7)
		configs := map[string]Config{
			"PUBLIC KEY":        {PublicKeys: []byte(publicPEM(tc.key))},
			"CERTIFICATE":       {PublicKeys: []byte(certificatePEM(tc.key))},
			"last of several":   {PublicKeys: []byte("the others:\n" + publicPEM(third) + certificatePEM(third) + "ours:\n" + publicPEM(tc.key) + "\n")},
			"beside a secret":   {Secret: userSecret, OperatorSecret: operatorSecret, PublicKeys: []byte(publicPEM(tc.key))},
			"set":               {JWKSURL: "https://keys.example", HTTP: always(setOf(jwkOf(tc.key.Public(), "", "")))},
			"set, among others": {JWKSURL: "https://keys.example", HTTP: always(setOf(jwkOf(third.Public(), "x", ""), jwkOf(tc.key.Public(), "y", ""), `{"kty":"oct"}`))},
		}
		if tc.alg == "RS256" {
			configs["RSA PUBLIC KEY"] = Config{PublicKeys: []byte(pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)))}
		}
		for name, config := range configs {
			t.Run(tc.alg+" "+name, func(t *testing.T) {
				v := newVerifier(t, config)
				wantUser7(t, v, good)
				wantUser7(t, v, good) // remembered
				_, err := v.Verify(forged)
				wantRefusal(t, err, chat.TokenInvalid, forged)
			})
		}
	}
}

// A key must not serve an algorithm other than its own, and no token brings a
// key along.
func TestKeyConfusion(t *testing.T) {
	k := privateKeys()
	public := &k.rsa.PublicKey
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	set := setOf(jwkOf(public, "r", ""), jwkOf(k.ec.Public(), "e", ""), jwkOf(k.ed.Public(), "d", ""))
	pems := publicPEM(k.rsa) + publicPEM(k.ec) + publicPEM(k.ed)

	tests := map[string]string{
		"alg none":                   b64(`{"alg":"none"}`) + "." + b64(payload7) + ".",
		"alg none, signed":           signWith(k.rsa, `{"alg":"none"}`, payload7),
		"alg none with a kid":        b64(`{"alg":"none","kid":"r"}`) + "." + b64(payload7) + ".",
		"rs256":                      signWith(k.rsa, `{"alg":"rs256"}`, payload7),
		"Es256":                      signWith(k.ec, `{"alg":"Es256"}`, payload7),
		"EDDSA":                      signWith(k.ed, `{"alg":"EDDSA"}`, payload7),
		"Ed25519":                    signWith(k.ed, `{"alg":"Ed25519"}`, payload7),
		"alg with a space":           signWith(k.rsa, `{"alg":"RS256 "}`, payload7),
		"alg an array":               signWith(k.rsa, `{"alg":["RS256"]}`, payload7),
		"RSA's signature as ES256":   signWith(k.rsa, `{"alg":"ES256"}`, payload7),
		"RSA's signature as EdDSA":   signWith(k.rsa, `{"alg":"EdDSA"}`, payload7),
		"P-256's signature as RS256": signWith(k.ec, `{"alg":"RS256"}`, payload7),
		"P-256's signature as EdDSA": signWith(k.ec, `{"alg":"EdDSA"}`, payload7),
		"Ed25519's as ES256":         signWith(k.ed, `{"alg":"ES256"}`, payload7),
		"RS384 in name":              signWith(k.rsa, `{"alg":"RS384"}`, payload7),
		"RS384":                      otherHash(k.rsa, "RS384", crypto.SHA384, nil),
		"RS512":                      otherHash(k.rsa, "RS512", crypto.SHA512, nil),
		"PS256":                      otherHash(k.rsa, "PS256", crypto.SHA256, &rsa.PSSOptions{SaltLength: 32}),
		"PS256's signature as RS256": otherHash(k.rsa, "RS256", crypto.SHA256, &rsa.PSSOptions{SaltLength: 32}),
		"ES384 on P-384":             signWith(k.p384, `{"alg":"ES384"}`, payload7),
		"ES256 on P-384":             signWith(k.p384, `{"alg":"ES256"}`, payload7),
		"ES384 in name":              signWith(k.ec, `{"alg":"ES384"}`, payload7),
		"ES256K in name":             signWith(k.ec, `{"alg":"ES256K"}`, payload7),
		"ES256, all zeros":           b64(`{"alg":"ES256"}`) + "." + b64(payload7) + "." + b64(strings.Repeat("\x00", 64)),
		"ES256, no signature":        b64(`{"alg":"ES256"}`) + "." + b64(payload7) + ".",
		"ES256 in ASN.1":             asn1Signed(t, k.ec),
		"EdDSA, all zeros":           b64(`{"alg":"EdDSA"}`) + "." + b64(payload7) + "." + b64(strings.Repeat("\x00", 64)),
		"EdDSA, no signature":        b64(`{"alg":"EdDSA"}`) + "." + b64(payload7) + ".",
		"RS256, no signature":        b64(`{"alg":"RS256"}`) + "." + b64(payload7) + ".",

		"HMAC by the PEM":             hs256([]byte(publicPEM(k.rsa)), `{"alg":"HS256"}`, payload7),
		"HMAC by all the PEM":         hs256([]byte(pems), `{"alg":"HS256"}`, payload7),
		"HMAC by the PEM, trimmed":    hs256([]byte(strings.TrimSpace(publicPEM(k.rsa))), `{"alg":"HS256"}`, payload7),
		"HMAC by PKIX":                hs256(pkix, `{"alg":"HS256"}`, payload7),
		"HMAC by PKCS #1":             hs256(x509.MarshalPKCS1PublicKey(public), `{"alg":"HS256"}`, payload7),
		"HMAC by the modulus":         hs256(public.N.Bytes(), `{"alg":"HS256"}`, payload7),
		"HMAC by the modulus, kid":    hs256(public.N.Bytes(), `{"alg":"HS256","kid":"r"}`, payload7),
		"HMAC by the JWK":             hs256([]byte(jwkOf(public, "r", "")), `{"alg":"HS256","kid":"r"}`, payload7),
		"HMAC by the set":             hs256([]byte(set), `{"alg":"HS256"}`, payload7),
		"HMAC by Ed25519's key":       hs256(k.ed.Public().(ed25519.PublicKey), `{"alg":"HS256","kid":"d"}`, payload7),
		"HMAC by nothing":             hs256(nil, `{"alg":"HS256"}`, payload7),
		"HMAC by the PEM as RS256":    hs256([]byte(publicPEM(k.rsa)), `{"alg":"RS256"}`, payload7),
		"HS512 with the right secret": hs512(userSecret, payload7),

		"another's kid":            signWith(k.ecOther, `{"alg":"ES256","kid":"e"}`, payload7),
		"kid of another algorithm": signWith(k.ecOther, `{"alg":"ES256","kid":"r"}`, payload7),
		"kid a number":             signWith(k.rsa, `{"alg":"RS256","kid":31337}`, payload7),
		"kid an array":             signWith(k.rsa, `{"alg":"RS256","kid":["r"]}`, payload7),
		"crit":                     signWith(k.rsa, `{"alg":"RS256","crit":["exp"]}`, payload7),
		"jwk of its own":           signWith(k.ecOther, `{"alg":"ES256","jwk":`+jwkOf(k.ecOther.Public(), "e", "")+`}`, payload7),
		"jwk and its kid":          signWith(k.ecOther, `{"alg":"ES256","kid":"e","jwk":`+jwkOf(k.ecOther.Public(), "e", "")+`}`, payload7),
		"jku":                      signWith(k.ecOther, `{"alg":"ES256","kid":"e","jku":"https://forged.example/jwks"}`, payload7),
		"jku, a kid of its own":    signWith(k.ecOther, `{"alg":"ES256","kid":"mine","jku":"https://forged.example/jwks"}`, payload7),
		"x5u":                      signWith(k.rsaOther, `{"alg":"RS256","x5u":"https://forged.example/cert"}`, payload7),
		"x5c":                      signWith(k.rsaOther, `{"alg":"RS256","x5c":["`+x5c(k.rsaOther)+`"]}`, payload7),
	}
	client := &http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host != "keys.example" {
			t.Errorf("%s was asked for", r.URL)
		}
		return answer(http.StatusOK, set), nil
	})}
	for name, config := range map[string]Config{
		"PEM":            {PublicKeys: []byte(pems)},
		"set":            {JWKSURL: "https://keys.example/jwks", HTTP: client},
		"everything":     {Secret: userSecret, OperatorSecret: operatorSecret, PublicKeys: []byte(pems), JWKSURL: "https://keys.example/jwks", HTTP: client},
		"PEM, operators": {OperatorSecret: operatorSecret, PublicKeys: []byte(pems)},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, config)
			wantUser7(t, v, signWith(k.rsa, `{"alg":"RS256","kid":"r"}`, payload7)) // what is refused could be right
			for name, raw := range tests {
				t.Run(name, func(t *testing.T) {
					_, err := v.Verify(raw)
					wantRefusal(t, err, chat.TokenInvalid, raw)
				})
			}
			raw := hs256(userSecret, `{"alg":"HS256"}`, payload7)
			if _, err := v.Verify(raw); config.Secret == nil {
				wantRefusal(t, err, chat.TokenInvalid, raw)
			} else if err != nil {
				t.Errorf("HS256 with its secret: got %v, want no error", err)
			}
		})
	}
	// And the other way round: with a secret only, no key pair does.
	v := newVerifier(t, Config{Secret: userSecret})
	for _, raw := range []string{signWith(k.rsa, `{"alg":"RS256"}`, payload7), signWith(k.ec, `{"alg":"ES256"}`, payload7), signWith(k.ed, `{"alg":"EdDSA"}`, payload7)} {
		_, err := v.Verify(raw)
		wantRefusal(t, err, chat.TokenInvalid, raw)
	}
}

// otherHash signs with an RSA key as another algorithm would.
func otherHash(k *rsa.PrivateKey, alg string, hash crypto.Hash, pss *rsa.PSSOptions) string {
	text := b64(`{"alg":"`+alg+`"}`) + "." + b64(payload7)
	h := hash.New()
	h.Write([]byte(text))
	var sig []byte
	var err error
	if pss != nil {
		sig, err = rsa.SignPSS(rand.Reader, k, hash, h.Sum(nil), pss)
	} else {
		sig, err = rsa.SignPKCS1v15(rand.Reader, k, hash, h.Sum(nil))
	}
	if err != nil {
		panic(err)
	}
	return text + "." + b64(string(sig))
}

func asn1Signed(t *testing.T, k *ecdsa.PrivateKey) string {
	text := b64(`{"alg":"ES256"}`) + "." + b64(payload7)
	digest := sha256.Sum256([]byte(text))
	sig, err := ecdsa.SignASN1(rand.Reader, k, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(string(sig))
}

func hs512(secret []byte, payload string) string {
	text := b64(`{"alg":"HS512"}`) + "." + b64(payload)
	mac := hmac.New(sha512.New, secret)
	mac.Write([]byte(text))
	return text + "." + b64(string(mac.Sum(nil)))
}

// x5c is a certificate as it stands in a header.
func x5c(k crypto.Signer) string {
	block, _ := pem.Decode([]byte(certificatePEM(k)))
	return base64.StdEncoding.EncodeToString(block.Bytes)
}

func TestPEMRefuses(t *testing.T) {
	k := privateKeys()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k.ed)
	if err != nil {
		t.Fatal(err)
	}
	exponent1 := x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: k.rsa.N, E: 1})
	even := x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: new(big.Int).Lsh(k.rsa.N, 1), E: 65537})
	long := x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: new(big.Int).Lsh(k.rsa.N, 8192), E: 65537})
	good := publicPEM(k.ed)
	tests := []struct{ name, pem, want string }{
		{"not PEM", "MARK", "not PEM"},
		{"white space", "\n", "not PEM"},
		{"private key", pemOf("PRIVATE KEY", pkcs8), "PEM block 1: this is a private key"},
		{"private key of RSA", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.rsa)), "PEM block 1: this is a private key"},
		{"private key behind a good one", good + pemOf("EC PRIVATE KEY", nil), "PEM block 2: this is a private key"},
		{"encrypted private key", pemOf("ENCRYPTED PRIVATE KEY", []byte("x")), "this is a private key"},
		{"parameters", pemOf("EC PARAMETERS", []byte("x")), `want PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE, not "EC PARAMETERS"`},
		{"rubbish in a block", pemOf("PUBLIC KEY", []byte("MARK")), "PUBLIC KEY cannot be read"},
		{"rubbish in a certificate", pemOf("CERTIFICATE", []byte("MARK")), "CERTIFICATE cannot be read"},
		{"damaged block", good + "-----BEGIN PUBLIC KEY-----\nMARK\n", "1 of 2 PEM blocks are damaged"},
		{"damaged block in front", "-----BEGIN PUBLIC KEY-----\n" + good, "1 of 2 PEM blocks are damaged"},
		{"RSA of 1024 bits", publicPEM(k.rsaShort), "RSA key has 1024 bits; 2048 to 8192"},
		{"certificate of RSA of 1024 bits", certificatePEM(k.rsaShort), "RSA key has 1024 bits"},
		{"RSA of 10240 bits", pemOf("RSA PUBLIC KEY", long), "RSA key has 10240 bits"},
		{"RSA with exponent 1", pemOf("RSA PUBLIC KEY", exponent1), "RSA key is not one"},
		{"RSA with an even modulus", pemOf("RSA PUBLIC KEY", even), "RSA key is not one"},
		{"P-384", publicPEM(k.p384), "key is on the curve P-384"},
		{"17 keys", strings.Repeat(good, 17), "17 PEM blocks; 16 at most"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			v, err := New(Config{PublicKeys: []byte(tc.pem)})
			if err == nil {
				v.Close()
				t.Fatal("got no error, want one")
			}
			if got := err.Error(); !strings.HasPrefix(got, "token.public_keys: ") || !strings.Contains(got, tc.want) || strings.Contains(got, "MARK") {
				t.Errorf("got %q, want token.public_keys: and %q", got, tc.want)
			}
		})
	}
	if _, err := parsePEM([]byte(strings.Repeat(good, 16))); err != nil {
		t.Errorf("16 keys: got %v, want no error", err)
	}
}
