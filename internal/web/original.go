package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// The original platform's calls, byte for byte, for apps in the field. Its
// sentences are always Korean; its errors are HTTP 400, but for one.

// originalBody is the body of POST /send/message.
type originalBody struct {
	PresenterIdx id     `json:"presenterIdx"`
	RoomIdx      id     `json:"roomIdx"`
	TextMessage  string `json:"textMessage"`
	Token        string `json:"token"`
	// userType is not read: who one is is decided by the identity.
}

// id is an id that is written as a string or as a number.
type id string

// UnmarshalJSON implements [json.Unmarshaler]. A number is its decimal text.
func (v *id) UnmarshalJSON(data []byte) error {
	var s string
	if data[0] == '"' {
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
	} else if s = string(data); s == "null" {
		return nil
	}
	if s != "" && !chat.ValidID(s) || len(data) > 0 && data[0] != '"' && !decimal(s) {
		return errors.New("not an id")
	}
	*v = id(s)
	return nil
}

// decimal reports whether s is an integer of 1 to 19 digits with no leading zero.
func decimal(s string) bool {
	if len(s) < 1 || len(s) > 19 || len(s) > 1 && s[0] == '0' {
		return false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// errNoPresenter is refused with a sentence of the original's own.
var errNoPresenter = errors.New("presenterIdx is missing")

func (s *Server) originalSay(w http.ResponseWriter, r *http.Request) error {
	err := s.counted(s.originalSend)(w, r)
	if err != nil {
		s.refuseOriginal(w, r, err)
	}
	return nil
}

// originalSend takes a line and answers 200 with an empty body. A line that
// waits for the presenter's socket is in the log and will be shown, so it is
// well too: the original's "please send it again" would double it.
func (s *Server) originalSend(w http.ResponseWriter, r *http.Request, a *attempt) error {
	if err := s.sameSite(r); err != nil {
		return err
	}
	user, unknown := s.user(r)
	if unknown == nil {
		unknown = a.by(user)
	}
	if a.refused {
		return unknown
	}
	data, err := readBody(w, r)
	if err != nil {
		return err
	}
	body, err := decodeOriginal(data)
	if err != nil {
		return err
	}
	if user, err = s.agree(user, unknown, body.Token); err != nil {
		return err
	}
	if err := a.by(user); err != nil {
		return err
	}
	room, err := s.originalRoom(r, user, body)
	if err != nil {
		return err
	}
	if _, err := s.Desk.Send(r.Context(), chat.Draft{Room: room, User: user, Text: body.TextMessage, Address: a.address}); err != nil {
		if user.ID == room && isCode(err, chat.PresenterGone) {
			return errPresenterReconnect
		}
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// agree is who the gateway or a header says, and the token in the body: where
// several of them speak, they must name the same user.
func (s *Server) agree(user chat.User, unknown error, inBody string) (chat.User, error) {
	if inBody == "" || unknown != nil && !isCode(unknown, chat.TokenMissing) {
		return user, unknown
	}
	other, err := s.Verify(inBody)
	switch {
	case err != nil || unknown != nil:
		return other, err
	case other.ID != user.ID:
		return user, chat.Refuse(chat.TokenMismatch)
	}
	return user, nil
}

func decodeOriginal(data []byte) (originalBody, error) {
	var b originalBody
	if err := wire.Decode(data, &b); err != nil {
		return b, invalidBody(wire.Reason(err))
	}
	clean, err := text.Message(b.TextMessage)
	b.TextMessage = clean
	return b, refuseText(err)
}

// originalRoom is the room a line is for: the presenter's, the one where the
// broadcast runs, or the sender's own when they are on air.
func (s *Server) originalRoom(r *http.Request, user chat.User, body originalBody) (string, error) {
	if body.PresenterIdx != "" {
		return string(body.PresenterIdx), nil
	}
	if body.RoomIdx != "" {
		if room, known := s.Desk.RoomOf(string(body.RoomIdx)); known {
			return room, nil
		}
		return "", chat.Refuse(chat.BroadcastEndedCode)
	}
	st, err := s.Desk.State(r.Context(), user.ID)
	if err != nil {
		return "", err
	}
	if linked, _ := s.Hub.Linked(user.ID); !linked && !st.Live() {
		return "", errNoPresenter
	}
	return user.ID, nil
}

// errPresenterReconnect tells a presenter to open the socket again; the original
// answers it with 202.
var errPresenterReconnect = errors.New("the presenter's own socket is gone")

// The original's sentences.
const (
	originalNotLive    = "해당 스트리머는 현재 방송 중이지 않습니다."
	originalNoSession  = "세션이 존재하지 않습니다. 재연결 중입니다. 잠시 후에 다시 보내주세요.."
	originalReconnect  = "세션이 존재하지 않습니다. 재연결을 해주세요."
	originalNoRoom     = "PresenterIdx는 null값이 올 수 없습니다."
	originalExpired    = "토큰이 만료되었습니다."
	originalForged     = "토큰이 변조되었습니다."
	originalNoText     = "보내는 채팅은 null이 될 수 없습니다."
	originalTimeFormat = "2006-01-02T15:04:05.000-07:00"
)

// originalError is the original's answer to everything that went wrong.
type originalError struct {
	Timestamp string `json:"timestamp"`
	Status    int    `json:"status"`
	Message   string `json:"message"`
	Path      string `json:"path"`
}

// originalSentence is what the original says of an error, and with which status.
// It knew nothing of our other refusals, whose own sentences are shown.
func originalSentence(err error, ref *chat.Refusal) (status int, message string) {
	switch {
	case errors.Is(err, errNoPresenter):
		return http.StatusBadRequest, originalNoRoom
	case errors.Is(err, errPresenterReconnect):
		return http.StatusAccepted, originalReconnect
	}
	status = http.StatusBadRequest
	switch ref.Code {
	case chat.BroadcastEndedCode:
		return status, originalNotLive
	case chat.PresenterGone:
		return status, originalNoSession
	case chat.TokenExpired:
		return status, originalExpired
	case chat.TokenInvalid, chat.TokenMissing, chat.TokenMismatch, chat.IdentityInvalid, chat.IdentityUntrusted:
		return status, originalForged
	case chat.MessageEmpty:
		return status, originalNoText
	case chat.Internal:
		status = http.StatusInternalServerError
	}
	return status, ref.Detail(chat.Korean)
}

func (s *Server) refuseOriginal(w http.ResponseWriter, r *http.Request, err error) {
	var ref *chat.Refusal
	switch {
	case errors.Is(err, errNoPresenter):
		s.Metrics.refused(chat.RoomInvalid)
	case errors.Is(err, errPresenterReconnect):
		s.Metrics.refused(chat.PresenterGone)
	default:
		ref = s.asRefusal(r, w.(*recorder).requestID, err)
		s.Metrics.refused(ref.Code)
	}
	status, message := originalSentence(err, ref)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = encodeJSON(w, originalError{time.Now().In(s.Zone).Format(originalTimeFormat), status, message, "/send/message"})
}
