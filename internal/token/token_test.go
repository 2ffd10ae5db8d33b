package token

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

var (
	userSecret     = []byte("users' secret of thirty-two bytes")
	operatorSecret = []byte("operator's secret, just as long..")
)

// farOff is an exp that no test run reaches: the year 9000.
const farOff = 221845392000

// hs256 signs any header and payload, also ones that Mint would not write.
func hs256(secret []byte, header, payload string) string {
	signed := b64(header) + "." + b64(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + b64(string(mac.Sum(nil)))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// signed is a user's token with that payload; %d in it is farOff.
func signed(payload string) string {
	return hs256(userSecret, `{"alg":"HS256"}`, strings.ReplaceAll(payload, "%d", fmt.Sprint(farOff)))
}

func newVerifier(t testing.TB, c Config) *Verifier {
	t.Helper()
	v, err := New(c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(v.Close)
	return v
}

// wantRefusal checks an error's type and code, and that neither the token nor
// what its claims say (which tests mark with MARK and 31337) is in its text.
func wantRefusal(t testing.TB, err error, code chat.Code, raw string) {
	t.Helper()
	r, ok := err.(*chat.Refusal)
	if !ok {
		t.Errorf("got %T (%v), want a *chat.Refusal with %s", err, err, code)
		return
	}
	if got, want := r.Code, code; got != want {
		t.Errorf("got %s (%v), want %s", got, r.Cause, want)
	}
	if r.Cause == nil && code != chat.TokenMissing {
		t.Errorf("%s: got no cause, want one for the log", code)
	}
	secrets := append(strings.Split(raw, "."), "MARK", "31337", "secret of", "secret,")
	for _, s := range secrets {
		if len(s) >= 4 && strings.Contains(err.Error(), s) {
			t.Errorf("error %q contains %q", err, s)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	const header = `{"alg":"HS256","typ":"JWT"}`
	payload := fmt.Sprintf(`{"sub":"MARK","nickname":"MARK","exp":%d}`, farOff)
	good := hs256(userSecret, header, payload)
	parts := strings.Split(good, ".")

	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024) // genuine is enough, and 2048 can take seconds
	if err != nil {
		t.Fatal(err)
	}
	rs256Signed := b64(`{"alg":"RS256"}`) + "." + b64(payload)
	digest := sha256.Sum256([]byte(rs256Signed))
	rs256Sig, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	hs384Signed := b64(`{"alg":"HS384"}`) + "." + b64(payload)
	hs384 := hmac.New(sha512.New384, userSecret)
	hs384.Write([]byte(hs384Signed))

	tests := []struct {
		name, raw string
		want      chat.Code
	}{
		{"empty", "", chat.TokenMissing},

		// The token as text.
		{"blank", " ", chat.TokenInvalid},
		{"no parts", "MARK", chat.TokenInvalid},
		{"two parts", parts[0] + "." + parts[1], chat.TokenInvalid},
		{"four parts", good + ".MARK", chat.TokenInvalid},
		{"five parts, as JWE has", "MARK.MARK.MARK.MARK.MARK", chat.TokenInvalid},
		{"JSON serialisation", `{"payload":"` + parts[1] + `"}`, chat.TokenInvalid},
		{"Bearer left in front", "Bearer " + good, chat.TokenInvalid},
		{"two tokens", good + ", " + good, chat.TokenInvalid},
		{"line break behind", good + "\n", chat.TokenInvalid},
		{"line break inside", parts[0] + "." + parts[1] + ".\r\n" + parts[2], chat.TokenInvalid},
		{"padded", good + "=", chat.TokenInvalid},
		{"header not Base64", "M@RK." + parts[1] + "." + parts[2], chat.TokenInvalid},
		{"payload not Base64", parts[0] + ".M@RK." + parts[2], chat.TokenInvalid},
		{"over 4 KiB", signed(`{"sub":"MARK","exp":%d,"x":"` + strings.Repeat("x", 3100) + `"}`), chat.TokenInvalid},

		// The signature.
		{"another secret", hs256([]byte("MARK, another secret, 32 bytes of it"), header, payload), chat.TokenInvalid},
		{"empty secret", hs256(nil, header, payload), chat.TokenInvalid},
		{"no signature", parts[0] + "." + parts[1] + ".", chat.TokenInvalid},
		{"signature cut", good[:len(good)-2], chat.TokenInvalid},
		{"signature with stray bits", strayBits(good), chat.TokenInvalid},
		{"signature of another payload", parts[0] + "." + b64(strings.Replace(payload, "MARK", "MARQ", 1)) + "." + parts[2], chat.TokenInvalid},
		{"expired and forged", hs256([]byte("MARK, another secret, 32 bytes of it"), header, `{"sub":"MARK","exp":31337}`), chat.TokenInvalid},

		// The header.
		{"alg none", b64(`{"alg":"none"}`) + "." + parts[1] + ".", chat.TokenInvalid},
		{"alg None", b64(`{"alg":"None"}`) + "." + parts[1] + ".", chat.TokenInvalid},
		{"alg none, signed", hs256(userSecret, `{"alg":"none"}`, payload), chat.TokenInvalid},
		{"alg none, then HS256's signature", b64(`{"alg":"none"}`) + "." + parts[1] + "." + parts[2], chat.TokenInvalid},
		{"HS384 with our secret", hs384Signed + "." + b64(string(hs384.Sum(nil))), chat.TokenInvalid},
		{"HS384 in name only", hs256(userSecret, `{"alg":"HS384"}`, payload), chat.TokenInvalid},
		{"RS256 with our secret as the key", hs256(userSecret, `{"alg":"RS256"}`, payload), chat.TokenInvalid},
		{"RS256 with a key of its own", rs256Signed + "." + b64(string(rs256Sig)), chat.TokenInvalid},
		{"RS256 with the key in the header", hs256(userSecret, `{"alg":"RS256","jwk":{"kty":"RSA","n":"MARK","e":"AQAB"}}`, payload), chat.TokenInvalid},
		{"EdDSA in name only", hs256(userSecret, `{"alg":"EdDSA"}`, payload), chat.TokenInvalid},
		{"hs256 in lower case", hs256(userSecret, `{"alg":"hs256"}`, payload), chat.TokenInvalid},
		{"unknown alg", hs256(userSecret, `{"alg":"MARK"}`, payload), chat.TokenInvalid},
		{"no alg", hs256(userSecret, `{"typ":"JWT"}`, payload), chat.TokenInvalid},
		{"alg a number", hs256(userSecret, `{"alg":31337}`, payload), chat.TokenInvalid},
		{"header null", hs256(userSecret, `null`, payload), chat.TokenInvalid},
		{"header a number", hs256(userSecret, `31337`, payload), chat.TokenInvalid},
		{"crit", hs256(userSecret, `{"alg":"HS256","crit":["exp"],"exp":31337}`, payload), chat.TokenInvalid},
		{"crit empty", hs256(userSecret, `{"alg":"HS256","crit":[]}`, payload), chat.TokenInvalid},
		{"payload not encoded (RFC 7797)", hs256(userSecret, `{"alg":"HS256","crit":["b64"],"b64":false}`, payload), chat.TokenInvalid},

		// The payload as JSON.
		{"payload empty", signed(``), chat.TokenInvalid},
		{"payload no JSON", signed(`MARK`), chat.TokenInvalid},
		{"payload null", signed(`null`), chat.TokenInvalid},
		{"payload an array", signed(`[{"sub":"MARK","exp":%d}]`), chat.TokenInvalid},
		{"payload a string", signed(`"MARK"`), chat.TokenInvalid},
		{"payload a number", signed(`31337`), chat.TokenInvalid},
		{"two payloads", signed(`{"sub":"MARK","exp":%d}{"sub":"MARK","exp":%d}`), chat.TokenInvalid},
		{"claim repeated", signed(`{"sub":"MARK","sub":"MARK2","exp":%d}`), chat.TokenInvalid},
		{"claim repeated by an escape", signed(`{"sub":"MARK","\u0073ub":"MARK2","exp":%d}`), chat.TokenInvalid},
		{"name repeated in attrs", signed(`{"sub":"MARK","attrs":{"a":"MARK","a":"MARK2"},"exp":%d}`), chat.TokenInvalid},
		{"invalid UTF-8", signed(`{"sub":"MARK","nickname":"` + "\xff" + `","exp":%d}`), chat.TokenInvalid},
		{"lone surrogate", signed(`{"sub":"MARK","nickname":"\ud800","exp":%d}`), chat.TokenInvalid},

		// Times; their edges have a test of their own.
		{"no exp", signed(`{"sub":"MARK"}`), chat.TokenInvalid},
		{"exp null", signed(`{"sub":"MARK","exp":null}`), chat.TokenInvalid},
		{"exp a string", signed(`{"sub":"MARK","exp":"31337"}`), chat.TokenInvalid},
		{"exp negative", signed(`{"sub":"MARK","exp":-31337}`), chat.TokenInvalid},
		{"exp in milliseconds", signed(`{"sub":"MARK","exp":1900000000000}`), chat.TokenInvalid},
		{"exp no float64", signed(`{"sub":"MARK","exp":31337e999}`), chat.TokenInvalid},
		{"EXP", signed(`{"sub":"MARK","EXP":%d}`), chat.TokenInvalid},
		{"expired", signed(`{"sub":"MARK","exp":31337}`), chat.TokenExpired},
		{"not yet", signed(`{"sub":"MARK","exp":%d,"nbf":221845391000}`), chat.TokenInvalid},
		{"nbf a string", signed(`{"sub":"MARK","exp":%d,"nbf":"31337"}`), chat.TokenInvalid},
		{"issued in the future", signed(`{"sub":"MARK","exp":%d,"iat":221845391000}`), chat.TokenInvalid},
		{"iat an object", signed(`{"sub":"MARK","exp":%d,"iat":{}}`), chat.TokenInvalid},

		// The user.
		{"no user", signed(`{"nickname":"MARK","exp":%d}`), chat.TokenInvalid},
		{"user null", signed(`{"userIdx":null,"user_idx":null,"sub":null,"exp":%d}`), chat.TokenInvalid},
		{"USERIDX", signed(`{"USERIDX":"MARK","exp":%d}`), chat.TokenInvalid},
		{"useridx", signed(`{"useridx":"MARK","exp":%d}`), chat.TokenInvalid},
		{"USERIDX behind userIdx", signed(`{"userIdx":7,"USERIDX":"MARK","exp":%d}`), chat.TokenInvalid},
		{"Sub", signed(`{"Sub":"MARK","exp":%d}`), chat.TokenInvalid},
		{"id empty", signed(`{"userIdx":"","sub":"MARK","exp":%d}`), chat.TokenInvalid},
		{"id with a space", signed(`{"sub":"MARK MARK","exp":%d}`), chat.TokenInvalid},
		{"id with a line break behind", signed(`{"sub":"MARK\n","exp":%d}`), chat.TokenInvalid},
		{"id an address", signed(`{"sub":"MARK@example.com","exp":%d}`), chat.TokenInvalid},
		{"id of 65 characters", signed(`{"sub":"` + strings.Repeat("x", 65) + `","exp":%d}`), chat.TokenInvalid},
		{"id not ASCII", signed(`{"sub":"하늘","exp":%d}`), chat.TokenInvalid},
		{"id true", signed(`{"userIdx":true,"exp":%d}`), chat.TokenInvalid},
		{"id an array", signed(`{"userIdx":[31337],"exp":%d}`), chat.TokenInvalid},
		{"id an object", signed(`{"userIdx":{"id":31337},"exp":%d}`), chat.TokenInvalid},
		{"ids disagree", signed(`{"userIdx":31337,"user_idx":31338,"exp":%d}`), chat.TokenMismatch},
		{"ids disagree, one a string", signed(`{"userIdx":"31337","user_idx":31338,"exp":%d}`), chat.TokenMismatch},
		{"ids differ in case", signed(`{"userIdx":"MARK","user_idx":"mark","exp":%d}`), chat.TokenMismatch},
		{"one id invalid", signed(`{"userIdx":7,"user_idx":"MARK MARK","exp":%d}`), chat.TokenInvalid},

		// What is shown of the user.
		{"nickname a number", signed(`{"sub":"MARK","nickname":31337,"exp":%d}`), chat.TokenInvalid},
		{"nickname an object", signed(`{"sub":"MARK","nickname":{},"exp":%d}`), chat.TokenInvalid},
		{"attrs a string", signed(`{"sub":"MARK","attrs":"MARK","exp":%d}`), chat.TokenInvalid},
		{"attrs an array", signed(`{"sub":"MARK","attrs":["MARK"],"exp":%d}`), chat.TokenInvalid},
		{"attrs too large", signed(`{"sub":"MARK","attrs":` + attrsOf(chat.MaxAttrs+1) + `,"exp":%d}`), chat.TokenInvalid},
	}
	v := newVerifier(t, Config{Secret: userSecret, OperatorSecret: operatorSecret})
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			u, err := v.Verify(tc.raw)
			wantRefusal(t, err, tc.want, tc.raw)
			if !reflect.DeepEqual(u, chat.User{}) {
				t.Errorf("got user %+v beside the refusal, want none", u)
			}
		})
	}
	if got, want := v.rules.Load().cache.EstimatedSize(), 0; got != want {
		t.Errorf("cached refusals: got %d, want %d", got, want)
	}
}

// strayBits changes the last character of a token only in bits that mean
// nothing: 32 bytes are 42 characters and four bits of a 43rd.
func strayBits(raw string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, raw[len(raw)-1])
	return raw[:len(raw)-1] + alphabet[last^1:][:1]
}

// attrsOf is a JSON object of n bytes.
func attrsOf(n int) string {
	return `{"badge":"` + strings.Repeat("b", n-len(`{"badge":""}`)) + `"}`
}

func TestVerifyAccepts(t *testing.T) {
	user := func(id, nickname, attrs string) chat.User {
		u := chat.User{ID: id, Nickname: nickname, Expires: time.Unix(farOff, 0).UTC()}
		if attrs != "" {
			u.Attrs = []byte(attrs)
		}
		return u
	}
	tests := []struct {
		name, payload string
		want          chat.User
	}{
		{"sub", `{"sub":"42","exp":%d}`, user("42", "42", "")},
		{"sub a number", `{"sub":42,"exp":%d}`, user("42", "42", "")},
		{"userIdx", `{"userIdx":"u-7_x","exp":%d}`, user("u-7_x", "u-7_x", "")},
		{"user_idx", `{"user_idx":7,"exp":%d}`, user("7", "7", "")},
		{"userIdx before sub", `{"sub":"someone@example.com","userIdx":7,"exp":%d}`, user("7", "7", "")},
		{"both and agreeing", `{"userIdx":7,"user_idx":"7","exp":%d}`, user("7", "7", "")},
		{"null is absent", `{"userIdx":null,"user_idx":7,"nickname":null,"attrs":null,"nbf":null,"exp":%d}`, user("7", "7", "")},
		{"id of 64 characters", `{"sub":"` + strings.Repeat("x", 64) + `","exp":%d}`, user(strings.Repeat("x", 64), strings.Repeat("x", 64), "")},
		{"nickname", `{"sub":"7","nickname":"하늘","exp":%d}`, user("7", "하늘", "")},
		{"nickname to be cleaned", `{"sub":"7","nickname":" 하\u202e늘\t","exp":%d}`, user("7", "하늘", "")},
		{"nickname empty", `{"sub":"7","nickname":"","exp":%d}`, user("7", "7", "")},
		{"nickname invisible", `{"sub":"7","nickname":"\u3164","exp":%d}`, user("7", "7", "")},
		{"attrs", `{"sub":"7","attrs": { "badge" : "vip" , "n" : [ 1.50 ] } ,"exp":%d}`, user("7", "7", `{"badge":"vip","n":[1.50]}`)},
		{"attrs keep their bytes", `{"sub":"7","attrs":{"a":"<&>\u0041"},"exp":%d}`, user("7", "7", `{"a":"<&>\u0041"}`)},
		{"attrs empty", `{"sub":"7","attrs":{},"exp":%d}`, user("7", "7", `{}`)},
		{"attrs of 1 KiB", `{"sub":"7","attrs":` + attrsOf(chat.MaxAttrs) + `,"exp":%d}`, user("7", "7", attrsOf(chat.MaxAttrs))},
		{"attrs of 1 KiB when compact", `{"sub":"7","attrs": { ` + attrsOf(chat.MaxAttrs)[1:] + `,"exp":%d}`, user("7", "7", attrsOf(chat.MaxAttrs))},
		{"exp with a fraction", `{"sub":"7","exp":%d.9}`, user("7", "7", "")},
		{"iss and aud of anybody", `{"sub":"7","iss":"x","aud":["y","z"],"exp":%d}`, user("7", "7", "")},
		{"iss and aud of any type", `{"sub":"7","iss":1,"aud":2,"exp":%d}`, user("7", "7", "")},
		{"roles are nothing", `{"sub":"7","role":"operator","roles":["operator"],"userType":"presenter","exp":%d}`, user("7", "7", "")},
	}
	v := newVerifier(t, Config{Secret: userSecret, OperatorSecret: operatorSecret})
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			for _, pass := range []string{"first", "cached"} {
				got, err := v.Verify(signed(tc.payload))
				if err != nil {
					t.Fatalf("%s: got error %v, want none", pass, err)
				}
				if !reflect.DeepEqual(got, tc.want) {
					t.Errorf("%s:\ngot  %+v\nwant %+v", pass, got, tc.want)
				}
			}
		})
	}
}

func TestNumericIDs(t *testing.T) {
	tests := []struct {
		number string
		want   string // "" if refused
	}{
		{"0", "0"},
		{"7", "7"},
		{"9007199254740993", "9007199254740993"}, // 2^53+1, which a float64 rounds
		{"1234567890123456789", "1234567890123456789"},
		{"9223372036854775807", "9223372036854775807"},
		{"9999999999999999999", "9999999999999999999"},
		{"10000000000000000000", ""}, // 20 digits
		{"007", ""},
		{"-1", ""},
		{"-0", ""},
		{"+1", ""},
		{"1.0", ""},
		{"1e3", ""},
		{"1E3", ""},
		{"1e0", ""},
		{"0x10", ""},
	}
	v := newVerifier(t, Config{Secret: userSecret})
	for _, claim := range []string{"userIdx", "user_idx", "sub"} {
		for _, tc := range tests {
			t.Run(claim+" "+tc.number, func(t *testing.T) {
				raw := signed(`{"` + claim + `":` + tc.number + `,"exp":%d}`)
				u, err := v.Verify(raw)
				if tc.want == "" {
					wantRefusal(t, err, chat.TokenInvalid, raw)
				} else if err != nil {
					t.Errorf("got error %v, want user %s", err, tc.want)
				}
				if got := u.ID; got != tc.want {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			})
		}
	}
}

func TestRole(t *testing.T) {
	const payload = `{"sub":"7","role":"operator","exp":221845392000}`
	user, operator := hs256(userSecret, `{"alg":"HS256"}`, payload), hs256(operatorSecret, `{"alg":"HS256"}`, payload)
	v := newVerifier(t, Config{Secret: userSecret, OperatorSecret: operatorSecret})
	for _, pass := range []string{"first", "cached"} {
		for raw, want := range map[string]chat.Role{user: "", operator: chat.RoleOperator} {
			u, err := v.Verify(raw)
			if err != nil {
				t.Fatalf("%s: %v", pass, err)
			}
			if got := u.Role; got != want {
				t.Errorf("%s: got role %q, want %q", pass, got, want)
			}
		}
	}
	// An operator's token obeys the same rules.
	expired := hs256(operatorSecret, `{"alg":"HS256"}`, `{"sub":"7","exp":31337}`)
	_, err := v.Verify(expired)
	wantRefusal(t, err, chat.TokenExpired, expired)
	// Without an operator's secret there are no operators.
	_, err = newVerifier(t, Config{Secret: userSecret}).Verify(operator)
	wantRefusal(t, err, chat.TokenInvalid, operator)
}

func TestIssuerAndAudience(t *testing.T) {
	tests := []struct {
		name, claims string
		ok           bool
	}{
		{"both", `"iss":"us","aud":"chat"`, true},
		{"one of many", `"iss":"us","aud":["video","chat"]`, true},
		{"no iss", `"aud":"chat"`, false},
		{"iss null", `"iss":null,"aud":"chat"`, false},
		{"another iss", `"iss":"MARK","aud":"chat"`, false},
		{"iss in capitals", `"iss":"US","aud":"chat"`, false},
		{"iss an array", `"iss":["us"],"aud":"chat"`, false},
		{"no aud", `"iss":"us"`, false},
		{"aud null", `"iss":"us","aud":null`, false},
		{"aud empty", `"iss":"us","aud":""`, false},
		{"aud an empty array", `"iss":"us","aud":[]`, false},
		{"another aud", `"iss":"us","aud":"MARK"`, false},
		{"aud a part of ours", `"iss":"us","aud":"chat2"`, false},
		{"aud numbers", `"iss":"us","aud":[31337,"chat"]`, false},
		{"aud an object", `"iss":"us","aud":{"chat":"MARK"}`, false},
	}
	v := newVerifier(t, Config{Secret: userSecret, Issuer: "us", Audience: "chat"})
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			raw := signed(`{"sub":"7","exp":%d,` + tc.claims + `}`)
			_, err := v.Verify(raw)
			if tc.ok && err != nil {
				t.Errorf("got error %v, want none", err)
			} else if !tc.ok {
				wantRefusal(t, err, chat.TokenInvalid, raw)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	long := []byte(strings.Repeat("MARK", 20)) // longer than a block of SHA-256
	hashed := sha256.Sum256(long)
	tests := []struct {
		name   string
		config Config
		want   string
	}{
		{"no key", Config{}, "token.secret, token.public_keys and token.jwks_url are all empty"},
		{"no key for users", Config{OperatorSecret: operatorSecret}, "token.secret, token.public_keys and token.jwks_url are all empty"},
		{"short secret", Config{Secret: []byte("MARK31 bytes of secret.........")}, "token.secret: secret has 31 bytes"},
		{"short operator's secret", Config{Secret: userSecret, OperatorSecret: []byte("MARK")}, "token.operator_secret: secret has 4 bytes"},
		{"same secret", Config{Secret: userSecret, OperatorSecret: userSecret}, "token.operator_secret: the same key"},
		{"same secret to HMAC, padded", Config{Secret: userSecret, OperatorSecret: append(append([]byte{}, userSecret...), 0)}, "token.operator_secret: the same key"},
		{"same secret to HMAC, hashed", Config{Secret: long, OperatorSecret: hashed[:]}, "token.operator_secret: the same key"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			v, err := New(tc.config)
			if err == nil {
				v.Close()
				t.Fatal("got no error, want one")
			}
			if got := err.Error(); !strings.HasPrefix(got, tc.want) || strings.Contains(got, "MARK") {
				t.Errorf("got %q, want it to begin with %q and tell no secret", got, tc.want)
			}
		})
	}
}

// The caller may wipe or reuse its slices.
func TestNewCopiesSecrets(t *testing.T) {
	secret := append([]byte{}, userSecret...)
	v := newVerifier(t, Config{Secret: secret})
	clear(secret)
	if _, err := v.Verify(signed(`{"sub":"7","exp":%d}`)); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}
