package web

import (
	"errors"
	"mime"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// MaxBody bounds the bodies of requests, in bytes.
const MaxBody = 8 << 10

func roomOf(r *http.Request) (string, error) {
	room := r.PathValue("room")
	if !chat.ValidID(room) {
		return "", chat.Refuse(chat.RoomInvalid)
	}
	return room, nil
}

// readBody reads a JSON body of at most MaxBody bytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, chat.Refuse(chat.BodyType)
	}
	body := http.MaxBytesReader(w, r.Body, MaxBody)
	data, err := readAll(body, r.ContentLength)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &chat.Refusal{Code: chat.BodyTooLarge, Params: map[string]any{"max": MaxBody}}
	case err != nil:
		return nil, invalidBody("it did not arrive whole")
	}
	return data, nil
}

func invalidBody(reason string) error {
	return &chat.Refusal{Code: chat.BodyInvalid, Params: map[string]any{"reason": reason}}
}

// draftBody is the body of a line.
type draftBody struct {
	Text    string `json:"text"`
	ReplyTo int64  `json:"reply_to"`
}

func decodeDraft(data []byte) (draftBody, error) {
	var b draftBody
	if err := wire.Decode(data, &b); err != nil {
		return b, invalidBody(wire.Reason(err))
	}
	if b.ReplyTo < 0 || b.ReplyTo > wire.MaxSeq {
		return b, invalidBody("reply_to is not the seq of a line")
	}
	clean, err := text.Message(b.Text)
	b.Text = clean
	return b, refuseText(err)
}

func refuseText(err error) error {
	var long *text.TooLongError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, text.ErrEmpty):
		return chat.Refuse(chat.MessageEmpty)
	case errors.Is(err, text.ErrBadCharacters):
		return chat.Refuse(chat.MessageBadCharacters)
	case errors.As(err, &long):
		return &chat.Refusal{Code: chat.MessageTooLong, Params: map[string]any{"max": long.Max, "length": long.Length}}
	default:
		return invalidBody(err.Error())
	}
}

// idempotencyKey is the header's one value, "" where there is none.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1 || !visible(values[0], 128):
		return "", chat.Refuse(chat.IdempotencyInvalid)
	}
	return values[0], nil
}

// sent is the answer to a line that is in the log.
type sent struct {
	ID       string `json:"id"`
	Seq      int64  `json:"seq"`
	At       string `json:"at"`
	Text     string `json:"text"`
	Delivery string `json:"delivery"` // linked, or queued: it waits for the presenter's link
}

func (s *Server) say(w http.ResponseWriter, r *http.Request, a *attempt) error {
	if err := s.sameSite(r); err != nil {
		return err
	}
	user, err := s.user(r)
	if err != nil {
		return err
	}
	room, err := roomOf(r)
	if err != nil {
		return err
	}
	out, err := s.sayAs(w, r, a, user, room)
	s.setQuota(w.Header(), user, room, time.Now())
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, out)
}

func (s *Server) sayAs(w http.ResponseWriter, r *http.Request, a *attempt, user chat.User, room string) (sent, error) {
	if err := a.by(user); err != nil {
		return sent{}, err
	}
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return sent{}, err
	}
	data, err := readBody(w, r)
	if err != nil {
		return sent{}, err
	}
	body, err := decodeDraft(data)
	if err != nil {
		return sent{}, err
	}
	receipt, err := s.Desk.Send(r.Context(), chat.Draft{Room: room, User: user, Text: body.Text, ReplyTo: body.ReplyTo, Key: key, Address: a.address})
	if err != nil {
		return sent{}, err
	}
	row := receipt.Row
	out := sent{ID: row.ID, Seq: row.Seq, At: row.At.Format(chat.TimeFormat), Text: row.Text, Delivery: "queued"}
	if receipt.Linked {
		out.Delivery = "linked"
	}
	return out, nil
}

// head is what a viewer on somebody else's signalling polls.
func (s *Server) head(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.mayRead(r); err != nil {
		return err
	}
	st, err := s.stateOf(r)
	if err != nil {
		return err
	}
	s.Reading.cache(w.Header(), 1)
	return answer(w, http.StatusOK, struct {
		Log       string `json:"log"`
		Seq       int64  `json:"seq"`
		Broadcast string `json:"broadcast,omitempty"`
	}{s.Log.ID(), st.Seq, st.Broadcast.ID})
}

// broadcastView is a running broadcast as the API shows it.
type broadcastView struct {
	ID        string `json:"id"`
	Title     string `json:"title,omitempty"`
	StartedAt string `json:"started_at"`
}

func viewBroadcast(b chat.Broadcast) *broadcastView {
	if b.ID == "" {
		return nil
	}
	return &broadcastView{b.ID, b.Title, b.Started.UTC().Format(chat.TimeFormat)}
}

func (s *Server) room(w http.ResponseWriter, r *http.Request) error {
	st, err := s.stateOf(r)
	if err != nil {
		return err
	}
	linked, _ := s.Hub.Linked(st.Room)
	return answer(w, http.StatusOK, struct {
		Room      string         `json:"room"`
		Live      bool           `json:"live"`
		Linked    bool           `json:"linked"`
		Log       string         `json:"log"`
		Head      int64          `json:"head"`
		Broadcast *broadcastView `json:"broadcast,omitempty"`
	}{st.Room, st.Live(), linked, s.Log.ID(), st.Seq, viewBroadcast(st.Broadcast)})
}

func (s *Server) stateOf(r *http.Request) (chat.State, error) {
	room, err := roomOf(r)
	if err != nil {
		return chat.State{}, err
	}
	return s.Desk.State(r.Context(), room)
}

// openingBody is the body of PUT …/broadcast.
type openingBody struct {
	ID        string `json:"id"`
	Title     string `json:"title"`
	StartedAt string `json:"started_at"`
}

func decodeOpening(data []byte) (chat.Opening, error) {
	var b openingBody
	if err := wire.Decode(data, &b); err != nil {
		return chat.Opening{}, invalidBody(wire.Reason(err))
	}
	if !chat.ValidID(b.ID) {
		return chat.Opening{}, invalidBody("id must match [A-Za-z0-9][A-Za-z0-9_-]{0,63}")
	}
	open := chat.Opening{ID: b.ID}
	if b.Title != "" {
		title, err := text.Message(b.Title)
		if err != nil || utf8.RuneCountInString(title) > chat.MaxTitleRunes {
			return chat.Opening{}, invalidBody("title must be 1 to " + strconv.Itoa(chat.MaxTitleRunes) + " printable characters")
		}
		open.Title = title
	}
	if b.StartedAt != "" {
		at, err := time.Parse(time.RFC3339Nano, b.StartedAt)
		if err != nil || at.Year() < 2000 || at.Year() > 9998 {
			return chat.Opening{}, invalidBody("started_at must be an RFC 3339 time")
		}
		open.StartedAt = at
	}
	return open, nil
}

func (s *Server) startBroadcast(w http.ResponseWriter, r *http.Request) error {
	by, err := s.operator(r)
	if err != nil {
		return err
	}
	room, err := roomOf(r)
	if err != nil {
		return err
	}
	data, err := readBody(w, r)
	if err != nil {
		return err
	}
	open, err := decodeOpening(data)
	if err != nil {
		return err
	}
	b, fresh, err := s.Desk.StartBroadcast(r.Context(), room, by, open)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
	}
	return answer(w, status, viewBroadcast(b))
}

func (s *Server) endBroadcast(w http.ResponseWriter, r *http.Request) error {
	by, err := s.operator(r)
	if err != nil {
		return err
	}
	room, err := roomOf(r)
	if err != nil {
		return err
	}
	ended, err := s.Desk.EndBroadcast(r.Context(), room, by, "operator", nil)
	if err != nil {
		return err
	}
	if !ended {
		return chat.Refuse(chat.BroadcastNotRunning)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
