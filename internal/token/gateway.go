package token

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
)

// Gateway believes the identity headers of the platform's gateway. The zero
// value believes nobody and looks at no header.
type Gateway struct {
	// From are the networks that the gateway's connections come from.
	From []netip.Prefix
	// Secret stands in the header SecretHeader of every request of the gateway:
	// at least 32 bytes. Networks alone can be reached by too many.
	Secret []byte
	// Header names the header that carries the secret.
	Header string
}

// The headers that the platform's gateway sets about the user.
const (
	headerUser     = "X-Forward-Useridx"
	headerNickname = "X-Forward-Nickname"
	headerEmail    = "X-Forward-Email"
)

// Enabled reports whether a gateway is configured.
func (g *Gateway) Enabled() bool { return len(g.From) > 0 }

// Check says what is wrong with the configuration.
func (g *Gateway) Check() error {
	switch {
	case !g.Enabled():
		return nil
	case len(g.Secret) < minSecret:
		return fmt.Errorf("gateway.secret: at least %d bytes are needed beside gateway.from", minSecret)
	case g.Header == "":
		return errors.New("gateway.header: missing")
	}
	return nil
}

// Trusts reports whether a peer is in the gateway's networks.
func (g *Gateway) Trusts(peer netip.Addr) bool {
	peer = peer.Unmap()
	return slices.ContainsFunc(g.From, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// User reads the identity that the gateway put into a request. found is false
// where there are no identity headers, or no gateway is configured. The e-mail
// header is taken out of the request, so that nothing behind this can keep it.
//
// Errors are *[chat.Refusal]: identity.untrusted when the headers do not come
// from the gateway, identity.invalid when they stand there twice, in another
// spelling (some servers read X_Forward_Useridx as X-Forward-Useridx), or
// cannot be read.
func (g *Gateway) User(r *http.Request, peer netip.Addr) (user chat.User, found bool, err error) {
	if !g.Enabled() {
		return chat.User{}, false, nil
	}
	defer r.Header.Del(headerEmail)
	defer r.Header.Del(g.Header)
	if err := g.spelling(r.Header); err != nil {
		return chat.User{}, true, err
	}
	ids, nicknames, emails := r.Header.Values(headerUser), r.Header.Values(headerNickname), r.Header.Values(headerEmail)
	if len(ids)+len(nicknames)+len(emails) == 0 {
		return chat.User{}, false, nil
	}
	if !g.Trusts(peer) || !g.knows(r.Header.Values(g.Header)) {
		return chat.User{}, true, &chat.Refusal{Code: chat.IdentityUntrusted, Cause: errors.New("identity headers without the gateway's network and secret")}
	}
	if len(ids) != 1 || len(nicknames) > 1 || len(emails) > 1 || !chat.ValidID(ids[0]) {
		return chat.User{}, true, invalidIdentity("the user's id is missing or not an id, or a header is doubled")
	}
	user = chat.User{ID: ids[0], Nickname: ids[0]}
	if len(nicknames) == 1 {
		// Java's URLEncoder writes a space as +.
		decoded, err := url.QueryUnescape(nicknames[0])
		// Encoders write a comma as %2C; a bare one is where a proxy joined two headers.
		if err != nil || strings.Contains(nicknames[0], ",") {
			return chat.User{}, true, invalidIdentity("the nickname is not URL-encoded")
		}
		user.Nickname = text.Nickname(decoded, user.ID)
	}
	return user, true, nil
}

// spelling refuses headers that another program on the way may take for ours.
func (g *Gateway) spelling(h http.Header) error {
	for name := range h {
		if !strings.Contains(name, "_") {
			continue
		}
		meant := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		if slices.Contains([]string{headerUser, headerNickname, headerEmail, http.CanonicalHeaderKey(g.Header)}, meant) {
			return invalidIdentity("a header is spelt with _ for -")
		}
	}
	return nil
}

// knows compares in constant time, whatever the length.
func (g *Gateway) knows(values []string) bool {
	if len(values) != 1 {
		return false
	}
	given, want := sha256.Sum256([]byte(values[0])), sha256.Sum256(g.Secret)
	return subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

func invalidIdentity(cause string) error {
	return &chat.Refusal{Code: chat.IdentityInvalid, Cause: errors.New(cause)}
}

// Client is the address that limits are counted for: the right-most hop of
// X-Forwarded-For that is not one of the gateway's, or the peer where it is not
// the gateway. exempt is true for the gateway itself, when it names nobody.
func (g *Gateway) Client(h http.Header, peer netip.Addr) (client netip.Addr, exempt bool) {
	peer = peer.Unmap()
	if !g.Enabled() || !g.Trusts(peer) {
		return peer, false
	}
	hops := strings.Split(strings.Join(h.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		addr, err := parseHop(strings.TrimSpace(hop))
		if err != nil {
			return peer, true // beyond what cannot be read, nothing can be believed
		}
		if !g.Trusts(addr) {
			return addr, false
		}
	}
	return peer, true
}

// parseHop reads an address with or without a port, as proxies write both.
func parseHop(hop string) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(strings.Trim(hop, "[]")); err == nil {
		return addr.Unmap(), nil
	}
	withPort, err := netip.ParseAddrPort(hop)
	return withPort.Addr().Unmap(), err
}
