package spectest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Handler passes requests on to h, whose routes are patterns of a
// [http.ServeMux], and fails the test for every exchange that is not as
// documented.
func Handler(t testing.TB, h http.Handler) http.Handler {
	t.Helper()
	docs, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &exchange{ResponseWriter: w, request: r, target: *r.URL, sent: r.Header.Clone()}
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r.Body, &e.asked), r.Body}
		h.ServeHTTP(e, r)
		e.pattern = r.Pattern
		if err := docs.check(e); err != nil {
			t.Errorf("%s %s answered %d, which is not as documented:\n%v\n%.500s", r.Method, r.URL, e.status, err, e.body.Bytes())
		}
	})
}

// exchange is a request and its answer, as the answer is written.
type exchange struct {
	http.ResponseWriter
	request *http.Request
	target  url.URL
	sent    http.Header  // of the request, before anybody changed it
	asked   bytes.Buffer // as much of the request's body as was read
	pattern string       // the route; "" or "/" where there is none
	status  int
	header  http.Header // of the answer
	body    bytes.Buffer
}

// WriteHeader implements [http.ResponseWriter].
func (e *exchange) WriteHeader(status int) {
	if e.status == 0 {
		e.status, e.header = status, e.Header().Clone()
	}
	e.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (e *exchange) Write(b []byte) (int, error) {
	if e.status == 0 {
		e.status, e.header = http.StatusOK, e.Header().Clone()
	}
	e.body.Write(b)
	return e.ResponseWriter.Write(b)
}

// Hijack implements [http.Hijacker]. What follows is not HTTP.
func (e *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	e.status = http.StatusSwitchingProtocols
	return http.NewResponseController(e.ResponseWriter).Hijack()
}

// Unwrap serves [http.ResponseController].
func (e *exchange) Unwrap() http.ResponseWriter { return e.ResponseWriter }

func (d *Documents) check(e *exchange) error {
	if e.pattern == "" || e.pattern == "/" {
		return d.checkNoRoute(e)
	}
	method, path, _ := strings.Cut(e.pattern, " ")
	item := d.openAPI().get("paths", path)
	op := item.get(strings.ToLower(method))
	if !op.exists() {
		return fmt.Errorf("the route %s is not documented", e.pattern)
	}
	response := op.get("responses", strconv.Itoa(e.status))
	if !response.exists() {
		return fmt.Errorf("the status is not documented")
	}
	errs := []error{checkAnswer(e, response), checkRefusal(e, op.get("x-refusals").texts()), d.checkStream(path, e)}
	if e.status < 300 {
		errs = append(errs, checkRequest(e, item, op))
	}
	return errors.Join(errs...)
}

// checkNoRoute is for what no operation can document: unknown paths, other
// methods, foreign hosts.
func (d *Documents) checkNoRoute(e *exchange) error {
	if e.request.Method == http.MethodOptions && e.status == http.StatusNoContent {
		return checkAnswer(e, d.openAPI().get("components", "responses", "Preflight"))
	}
	return errors.Join(checkAnswer(e, d.openAPI().get("components", "responses", "Refused")),
		checkRefusal(e, []string{string(chat.NotFound), string(chat.MethodNotAllowed), string(chat.HostForeign), string(chat.OriginForeign)}))
}

// ofHTTP are headers of the protocol itself, which documents do not list.
var ofHTTP = []string{"Content-Type", "Content-Length", "Date"}

func checkAnswer(e *exchange, response node) error {
	if e.status == http.StatusSwitchingProtocols {
		return nil // the library wrote it to the hijacked connection
	}
	errs := checkHeaders(e.header, response)
	if e.request.Method != http.MethodHead {
		errs = append(errs, checkBody("body", response, e.header.Get("Content-Type"), e.body.Bytes()))
	}
	return errors.Join(errs...)
}

// checkHeaders holds an answer's headers against those of the response, and of
// x-headers, which every response may have.
func checkHeaders(h http.Header, response node) (errs []error) {
	documented := map[string]node{}
	for _, headers := range []node{response.docs.openAPI().get("x-headers"), response.get("headers")} {
		for _, name := range headers.keys() {
			documented[http.CanonicalHeaderKey(name)] = headers.get(name)
		}
	}
	for name, p := range documented {
		errs = append(errs, checkParameter("header "+name, p, h.Values(name)))
	}
	for name := range h {
		if !documented[name].exists() && !slices.Contains(ofHTTP, name) {
			errs = append(errs, fmt.Errorf("header %s is not documented", name))
		}
	}
	return errs
}

// checkParameter holds a header or a query's parameter against its schema.
func checkParameter(what string, p node, values []string) error {
	switch {
	case len(values) == 0 && p.get("required").isTrue():
		return fmt.Errorf("%s is missing", what)
	case len(values) == 0:
		return nil
	}
	joined := strings.Join(values, ", ") // which is what a repeated header means
	var v any = joined
	if p.get("schema", "type").text() == "integer" {
		v = json.Number(joined)
	}
	if err := p.get("schema").validate(v); err != nil {
		return fmt.Errorf("%s is %q: %w", what, joined, err)
	}
	return nil
}

// checkBody holds a body against the content that is documented for its type;
// none documented means an empty one.
func checkBody(what string, of node, contentType string, body []byte) error {
	content := of.get("content")
	if !content.exists() {
		if len(body) > 0 || contentType != "" {
			return fmt.Errorf("%s should be empty", what)
		}
		return nil
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return fmt.Errorf("%s: type %q: %w", what, contentType, err)
	}
	media := content.get(kind)
	if !media.exists() {
		return fmt.Errorf("%s: type %s is not documented", what, kind)
	}
	if kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return media.get("schema").validate(string(body))
	}
	if err := media.get("schema").validateJSON(body); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// checkStream holds the events of a stream against the messages of its channel.
// The last one may have been cut off.
func (d *Documents) checkStream(path string, e *exchange) error {
	if e.header.Get("Content-Type") != "text/event-stream" {
		return nil
	}
	var errs []error
	events := strings.Split(e.body.String(), "\n\n")
	for _, event := range events[:len(events)-1] {
		fields := map[string]string{}
		for line := range strings.Lines(event) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			fields[name] = value
		}
		if data, ok := fields["data"]; ok {
			name, err := d.Message(path, Server, []byte(data))
			if err == nil && name != fields["event"] {
				err = fmt.Errorf("a message %s is called %s", name, fields["event"])
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// problem is a refusal as a client reads it.
type problem struct {
	Type, Title  string
	Status       int
	Code         chat.Code
	RetryAfterMS int64 `json:"retry_after_ms"`
	Params       map[string]any
}

// checkRefusal holds a refusal against the catalogue and against the codes that
// an operation may answer.
func checkRefusal(e *exchange, documented []string) error {
	if kind, _, _ := mime.ParseMediaType(e.header.Get("Content-Type")); kind != "application/problem+json" {
		return nil
	}
	var p problem
	if err := json.Unmarshal(e.body.Bytes(), &p); err != nil {
		return err
	}
	entry, known := chat.Catalogue()[p.Code]
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case !known:
		fail("code %q is not in the catalogue", p.Code)
	case !slices.Contains(documented, string(p.Code)):
		fail("code %s is not among the x-refusals", p.Code)
	}
	if p.Type != "/problems/"+string(p.Code) || p.Title != entry.Title || p.Status != entry.Status || e.status != entry.Status {
		fail("type, title or status of %s differ from the catalogue", p.Code)
	}
	if got, want := slices.Sorted(maps.Keys(p.Params)), entry.Fields(); !slices.Equal(got, want) {
		fail("%s carries the params %v, want %v", p.Code, got, want)
	}
	if got, want := p.RetryAfterMS > 0, entry.Waits(); got != want {
		fail("%s with retry %q tells a time to wait: %t, want %t", p.Code, entry.Retry, got, want)
	}
	if seconds := e.header.Get("Retry-After"); p.RetryAfterMS > 0 && seconds != strconv.FormatInt((p.RetryAfterMS+999)/1000, 10) {
		fail("Retry-After is %q, want retry_after_ms %d rounded up to seconds", seconds, p.RetryAfterMS)
	}
	return errors.Join(errs...)
}

// checkRequest holds a request that was accepted against what is documented:
// otherwise the documents ask for more than the server does.
func checkRequest(e *exchange, item, op node) error {
	var errs []error
	query := e.target.Query()
	for _, p := range append(item.get("parameters").items(), op.get("parameters").items()...) {
		name := p.get("name").text()
		switch p.get("in").text() {
		case "query":
			errs = append(errs, checkParameter("query "+name, p, query[name]))
		case "header":
			errs = append(errs, checkParameter("header "+name, p, e.sent.Values(name)))
		case "path":
			errs = append(errs, checkParameter("path "+name, p, []string{e.request.PathValue(name)}))
		}
	}
	if body := op.get("requestBody"); body.exists() {
		errs = append(errs, checkBody("request", body, e.sent.Get("Content-Type"), e.asked.Bytes()))
	}
	return errors.Join(errs...)
}
