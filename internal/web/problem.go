package web

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/text/language"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// problem is a refusal as RFC 9457 writes it.
type problem struct {
	Type         string         `json:"type"`
	Title        string         `json:"title"`
	Status       int            `json:"status"`
	Detail       string         `json:"detail"`
	Code         chat.Code      `json:"code"`
	RetryAfterMS int64          `json:"retry_after_ms,omitempty"`
	RequestID    string         `json:"request_id"`
	Params       map[string]any `json:"params,omitempty"`
}

// refuse answers an error. It is the only place where one becomes bytes.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	rec := w.(*recorder)
	ref := s.asRefusal(r, rec.requestID, err)
	s.Metrics.refused(ref.Code)
	if rec.status != 0 {
		return // half an answer has left; the request ends here
	}
	lang := languageOf(r)
	e := chat.Lookup(ref.Code)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Language", string(lang))
	h.Add("Vary", "Accept-Language")
	h.Set("Cache-Control", "no-store")
	if e.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="hanmadi"`)
	}
	if ref.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(chat.WholeSeconds(ref.RetryAfter), 10))
	}
	w.WriteHeader(e.Status)
	_ = encodeJSON(w, problem{
		Type: "/problems/" + string(ref.Code), Title: e.Title, Status: e.Status, Detail: ref.Detail(lang), Code: ref.Code,
		RetryAfterMS: (ref.RetryAfter + time.Millisecond - 1).Milliseconds(), RequestID: rec.requestID, Params: ref.Params,
	})
}

// languages in the order of preference where a client has none.
var languages = language.NewMatcher([]language.Tag{language.Korean, language.English})

// languageOf is Korean, or English where the client prefers it.
func languageOf(r *http.Request) chat.Lang {
	accept := r.Header.Get("Accept-Language")
	if accept == "" || len(accept) > 1<<10 {
		return chat.Korean
	}
	tags, _, err := language.ParseAcceptLanguage(accept)
	if err != nil {
		return chat.Korean
	}
	if _, i, _ := languages.Match(tags...); i == 1 {
		return chat.English
	}
	return chat.Korean
}

func answer(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	if w.Header().Get("Cache-Control") == "" {
		w.Header().Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	_ = encodeJSON(w, v) // a client that went away is no failure of ours
	return nil
}

func encodeJSON(w http.ResponseWriter, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// problemPage is what a problem's type points to.
func (s *Server) problemPage(w http.ResponseWriter, r *http.Request) error {
	code := chat.Code(r.PathValue("code"))
	e, ok := chat.Catalogue()[code]
	if !ok {
		return chat.Refuse(chat.NotFound)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	return problemTemplate.Execute(w, struct {
		Code chat.Code
		chat.Entry
		Advice string
	}{code, e, advice[e.Retry]})
}

var advice = map[chat.Retry]string{
	chat.RetryNever: "같은 요청을 다시 보내도 결과가 같습니다. · Sending the same request again will not help.",
	chat.RetryLater: "Retry-After가 지난 뒤 다시 보내세요. · Send it again after Retry-After.",
	chat.RetryToken: "새 토큰으로 다시 보내세요. · Send it again with a new token.",
	chat.RetrySame:  "같은 Idempotency-Key로 다시 보내 결과를 확인하세요. · Send it again with the same Idempotency-Key to learn the outcome.",
}

var problemTemplate = template.Must(template.New("problem").Parse(`<!doctype html>
<html lang="ko">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Code}}</title>
<style>
  :root { color-scheme: light dark }
  body { max-width: 40rem; margin: 3rem auto; padding: 0 1rem; font: 15px/1.6 "Apple SD Gothic Neo", "Noto Sans KR", "Malgun Gothic", system-ui }
  code { font-size: 1.25rem }
  dt { margin-top: 1rem; font-weight: 600 }
  dd { margin: 0; word-break: keep-all; overflow-wrap: anywhere }
</style>
<main>
  <h1><code>{{.Code}}</code></h1>
  <dl>
    <dt>HTTP</dt><dd>{{.Status}} {{.Title}}</dd>
    <dt>한국어</dt><dd lang="ko">{{.Korean}}</dd>
    <dt>English</dt><dd lang="en">{{.English}}</dd>
    <dt>다시 보내기 · Trying again</dt><dd>{{.Advice}}</dd>
  </dl>
</main>
`))
