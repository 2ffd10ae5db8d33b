package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// The program's own log, at its most talkative, tells nothing of what people
// say, are called or show as their tokens, whether they are served or refused.
// Requests can be followed by their ids.
func TestLogTellsNothingOfWhatIsSaid(t *testing.T) {
	const secretWord, secretName, secretMail, foreignSecret = "비밀이야기-5f0c", "별명-77aa", "person@mail.example", "another-secret-of-at-least-32-bytes-1"
	s := startServer(t, "serve", "HANMADI_LOGGING_LEVEL=debug", "HANMADI_GATEWAY_FROM=127.0.0.0/8", "HANMADI_GATEWAY_SECRET="+tokenSecret)
	presenter, viewer := mint(t, "7", secretName), mint(t, "42", secretName)
	forged := mintWith(t, foreignSecret, "42", secretName)
	link := opened(t, s, "7")

	ask := func(method, url, token, body, id string, header ...string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Request-Id", id)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		return do(t, req, nil)
	}
	messages := s.url("/v1/rooms/7/messages")
	good := fmt.Sprintf(`{"text":%q}`, secretWord)
	for i, c := range []struct {
		want        int
		token, body string
		header      []string
	}{
		{http.StatusCreated, viewer, good, []string{"Idempotency-Key", privateWord}},
		{http.StatusUnprocessableEntity, viewer, fmt.Sprintf(`{"text":%q}`, secretWord+"!"), []string{"Idempotency-Key", privateWord}},
		{http.StatusUnauthorized, forged, good, nil},
		{http.StatusUnauthorized, viewer + "x", good, nil},
		{http.StatusBadRequest, viewer, `{"text":"` + secretWord, nil},
		{http.StatusBadRequest, viewer, `{"text":"a","text":"` + secretWord + `"}`, nil},
		{http.StatusUnprocessableEntity, viewer, fmt.Sprintf(`{"text":%q}`, strings.Repeat(secretWord, 100)), nil},
		{http.StatusUnauthorized, "", good, []string{"X-Forward-Useridx", "42", "X-Forward-Email", secretMail, "X-Forward-Nickname", secretName}},
		{http.StatusCreated, "", good, []string{"X-Forward-Useridx", "42", "X-Forward-Email", secretMail, "X-Gateway-Secret", tokenSecret}},
		{http.StatusUnauthorized, viewer, good, []string{"X-Forward-Useridx", "43", "X-Forward-Email", secretMail, "X-Gateway-Secret", tokenSecret}},
	} {
		if got := ask(http.MethodPost, messages, c.token, c.body, fmt.Sprint("follow-me-", i), c.header...); got != c.want {
			t.Errorf("request %d: got status %d, want %d", i, got, c.want)
		}
	}
	_ = ask(http.MethodGet, s.url("/v1/rooms/"+privateWord+"/events?token="+viewer), "", "", "follow-me-query")
	if err := link.send(t.Context(), map[string]string{"type": "token", "token": forged}); err != nil {
		t.Fatal(err)
	}
	if code := link.ending(t); code != 4501 {
		t.Errorf("a link whose new token is forged: got close code %d, want 4501", code)
	}
	s.stop()

	log := s.err.String()
	for name, never := range map[string]string{"a text": secretWord, "a nickname": secretName, "an e-mail address": secretMail, "a key": privateWord,
		"the secret": tokenSecret, "a token": viewer, "the presenter's token": presenter, "a forged token": forged, "a token's payload": strings.Split(viewer, ".")[1]} {
		if strings.Contains(log, never) {
			t.Errorf("the log tells %s:\n%s", name, log)
		}
	}
	for i := range 10 {
		if !regexp.MustCompile(fmt.Sprintf(`"request_id":"follow-me-%d","route":"POST /v1/rooms/\{room\}/messages"`, i)).MatchString(log) {
			t.Errorf("the log has no line of request follow-me-%d", i)
		}
	}
}

// privateWord is a word that may stand in headers and paths.
const privateWord = "private-word-93bd"

// What dashboards are made of is there, with its explanation, from the start
// and after a conversation.
func TestMetricsOfTheProgram(t *testing.T) {
	s := startServer(t, "serve")
	link := opened(t, s, "7")
	s.say(mint(t, "42", ""), "7", "한마디")
	if f, err := link.next(t.Context()); err != nil || f.Type != "events" {
		t.Fatalf("link: got %+v %v, want events", f, err)
	}
	request(t, http.MethodGet, s.url("/v1/rooms/7/events?after=x"), "", "", nil)
	_ = link.conn.CloseNow()
	var text string
	eventually(t, "the link's end is counted", func() bool {
		text = s.scrape()
		return strings.Contains(text, `hanmadi_link_closes_total{reason="gone"} 1`)
	})
	for _, want := range []string{
		`hanmadi_http_requests_total\{route="POST /v1/rooms/\{room\}/messages",status="201"\} 1`,
		`hanmadi_http_request_seconds_count\{route="POST /v1/rooms/\{room\}/messages"\} 1`,
		`hanmadi_refusals_total\{code="query.invalid"\} 1`,
		`hanmadi_refusals_total\{code="broadcast.ended"\} 0`,
		`hanmadi_log_group_rows_count [1-9]`,
		`hanmadi_log_append_seconds_count [1-9]`,
		`hanmadi_log_errors_total\{outcome="unknown"\} 0`,
		`hanmadi_log_tail_reads_total\{result="hit"\} [1-9]`,
		`hanmadi_log_tail_reads_total\{result="miss"\} \d`,
		`hanmadi_log_tail_bytes [1-9]`,
		`hanmadi_links 0`,
		`hanmadi_link_rows_total [1-9]`,
		`hanmadi_link_delivery_seconds_count [1-9]`,
		`hanmadi_session_lag_rows\{of="worst"\} 0`,
		`hanmadi_session_lag_seconds 0`,
		`hanmadi_link_closes_total\{reason="too_slow"\} 0`,
		`go_goroutines \d+`,
		`process_open_fds \d+`,
	} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(text) {
			t.Errorf("metrics: nothing like %s", want)
		}
	}
	for _, name := range regexp.MustCompile(`(?m)^# TYPE (\S+) `).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(text, "# HELP "+name[1]+" ") {
			t.Errorf("metrics: %s has no HELP", name[1])
		}
	}
}

// scrape reads the metrics as Prometheus does.
func (s *server) scrape() string {
	s.t.Helper()
	resp, err := fresh.Get(s.adminURL("/metrics"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("metrics: got status %d (%v), want 200", resp.StatusCode, err)
	}
	return string(text)
}
