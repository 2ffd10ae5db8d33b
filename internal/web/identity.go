package web

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/token"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// user is whoever asks: by the gateway's identity headers, by a token, or by
// both when they agree.
func (s *Server) user(r *http.Request) (chat.User, error) {
	forwarded, found, err := s.Gateway.User(r, peerOf(r))
	if err != nil {
		return chat.User{}, err
	}
	raw, err := token.FromHeaders(r.Header)
	if found && isCode(err, chat.TokenMissing) {
		return forwarded, nil
	}
	if err != nil {
		return chat.User{}, err
	}
	user, err := s.Verify(raw)
	if err == nil && found && user.ID != forwarded.ID {
		err = chat.Refuse(chat.TokenMismatch)
	}
	return user, err
}

func isCode(err error, code chat.Code) bool {
	var ref *chat.Refusal
	return errors.As(err, &ref) && ref.Code == code
}

func (s *Server) operator(r *http.Request) (chat.User, error) {
	user, err := s.user(r)
	if err == nil && user.Role != chat.RoleOperator {
		err = chat.Refuse(chat.Forbidden)
	}
	return user, err
}

// peerOf is the other end of the TCP connection.
func peerOf(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http writes it; nobody trusts the zero address
	return peer.Addr().Unmap()
}

// sameSite refuses requests that another site's page makes. A gateway may turn a
// cookie into identity headers, so in its presence a POST of any page would
// otherwise speak for whoever looks at it. Browsers tell by Sec-Fetch-Site, old
// ones by Origin; what sends neither is a program, and has no cookies of ours.
func (s *Server) sameSite(r *http.Request) error {
	if !s.Gateway.Enabled() {
		return nil
	}
	site, origins := r.Header.Values("Sec-Fetch-Site"), r.Header.Values("Origin")
	if len(site) == 0 && len(origins) == 0 || len(origins) == 1 && (slices.Contains(s.Origins, strings.ToLower(origins[0])) || s.corsListed(origins[0])) {
		return nil
	}
	if len(site) == 1 && slices.Contains([]string{"same-origin", "same-site", "none"}, site[0]) {
		return nil
	}
	return chat.Refuse(chat.OriginForeign)
}

// checkLive is the room server's own contract, for whoever wants to ask our
// registry as they would ask it.
func (s *Server) checkLive(w http.ResponseWriter, r *http.Request) error {
	data, err := readBody(w, r)
	if err != nil {
		return err
	}
	var question struct {
		PresenterIdx id `json:"presenterIdx"`
	}
	if err := wire.Decode(data, &question); err != nil {
		return invalidBody(wire.Reason(err))
	}
	room := string(question.PresenterIdx)
	if !chat.ValidID(room) {
		return chat.Refuse(chat.RoomInvalid)
	}
	st, err := s.Desk.State(r.Context(), room)
	if err != nil {
		return err
	}
	type verdict struct {
		Alive   bool   `json:"alive"`
		RoomIdx string `json:"roomIdx,omitempty"`
	}
	return answer(w, http.StatusOK, map[string]verdict{"data": {st.Live(), st.Broadcast.ID}})
}
