package spectest

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
)

// Side is who sends a frame.
type Side string

// The sides of a socket, in AsyncAPI's words for what the server does.
const (
	Server Side = "send"
	Client Side = "receive"
)

// Frame fails the test unless a message of a socket is one that the document
// lists for the side that sent it. The channel is a path, such as
// "/v1/presenter".
func Frame(t testing.TB, channel string, from Side, data []byte) {
	t.Helper()
	docs, err := Load()
	if err == nil {
		_, err = docs.Message(channel, from, data)
	}
	if err != nil {
		t.Errorf("the frame %.300q of %s is not as documented: %v", data, channel, err)
	}
}

// Message gives the name of the documented message that data is.
func (d *Documents) Message(channel string, from Side, data []byte) (string, error) {
	for _, m := range d.messages(channel, from) {
		if m.claims(data) {
			return m.name, m.check(data)
		}
	}
	return "", errors.New("there is no such message")
}

// message is one of the documented ones.
type message struct {
	name, text string // text: the whole message, where it is no JSON
	typ, id    string // the constants of its members type and id
	payload    node
	xpayload   node // what its member payload carries, if it does
}

// messages are those that one side of a channel sends.
func (d *Documents) messages(channel string, from Side) []message {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := string(from) + " " + channel
	if d.frames[key] == nil {
		d.frames[key] = d.readMessages(channel, from)
	}
	return d.frames[key]
}

func (d *Documents) readMessages(channel string, from Side) (all []message) {
	ops := d.asyncAPI().get("operations")
	for _, name := range ops.keys() {
		op := ops.get(name)
		if op.get("action").text() != string(from) || op.get("channel", "address").text() != channel {
			continue
		}
		for _, m := range op.get("messages").items() {
			payload := m.get("payload")
			all = append(all, message{
				name: m.at[len(async+"#/components/messages/"):], payload: payload, xpayload: payload.get("x-payload"),
				text: payload.get("const").text(), typ: payload.get("properties", "type", "const").text(), id: payload.get("properties", "id", "const").text(),
			})
		}
	}
	return all
}

// claims tells by its constant whether data is to be this message.
func (m message) claims(data []byte) bool {
	if m.text != "" {
		return m.text == string(data)
	}
	var head struct{ Type, ID string }
	_ = json.Unmarshal(data, &head) // what is no JSON is no such message
	return head.Type != "" && head.Type == m.typ || head.ID != "" && head.ID == m.id
}

func (m message) check(data []byte) error {
	if m.text != "" {
		return m.payload.validate(string(data))
	}
	if err := m.payload.validateJSON(data); err != nil || !m.xpayload.exists() {
		return err
	}
	var f struct{ Payload string }
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	return m.xpayload.validateJSON([]byte(f.Payload))
}

// Close fails the test unless the document lists a close code with the code of
// the refusal that was told before it.
func Close(t testing.TB, channel string, code int, refusal string) {
	t.Helper()
	docs, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range docs.CloseCodes(channel) {
		if c.Code == code && slices.Contains(c.Refusals, refusal) {
			return
		}
	}
	t.Errorf("a close with %d after %s is not documented", code, refusal)
}

// CloseCode is one of those that x-close-codes lists.
type CloseCode struct {
	Code      int
	Name      string
	Reconnect bool
	Refusals  []string
}

// CloseCodes are those of a channel.
func (d *Documents) CloseCodes(channel string) (all []CloseCode) {
	channels := d.asyncAPI().get("channels")
	for _, name := range channels.keys() {
		c := channels.get(name)
		if c.get("address").text() != channel {
			continue
		}
		data, _ := json.Marshal(c.get("x-close-codes").value)
		_ = json.Unmarshal(data, &all) // a test of the document's shape would fail
	}
	return all
}
