package token

import (
	"testing"
	"time"
)

func BenchmarkVerify(b *testing.B) {
	v := newVerifier(b, Config{Secret: userSecret, OperatorSecret: operatorSecret, Issuer: "us", Audience: "chat"})
	claims := Claims{UserID: "42", Nickname: "하늘", Attrs: []byte(`{"badge":"vip","color":"#ff8800"}`),
		Issuer: "us", Audience: "chat", Expires: time.Unix(farOff, 0)}
	raw, err := Mint(userSecret, claims)
	if err != nil {
		b.Fatal(err)
	}
	forged, err := Mint([]byte("another secret of thirty-two bytes"), claims)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("uncached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.rules.Load().verify(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("forged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(forged); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}
