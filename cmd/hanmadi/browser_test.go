package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// attempt is a request of the browser, as it arrived, and what it got.
type attempt struct {
	page, method, path string
	site               string // Sec-Fetch-Site
	session            bool   // the cookie came along
	status             int
	code               string // of a refusal, or the old sentence
}

// watched stands before nginx and writes down what the browser sends there. It
// serves the platform's own page too, so that the page has nginx's origin.
type watched struct {
	http.Handler
	mu       sync.Mutex
	attempts []attempt // guarded by mu
}

func (w *watched) note(resp *http.Response) error {
	r := resp.Request
	a := attempt{page: r.Header.Get("Origin"), method: r.Method, path: r.URL.Path, site: r.Header.Get("Sec-Fetch-Site"), status: resp.StatusCode}
	_, err := r.Cookie("session")
	a.session = err == nil
	if resp.StatusCode >= 400 {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		resp.Body = io.NopCloser(strings.NewReader(string(body)))
		var refusal struct{ Code, Message string }
		if json.Unmarshal(body, &refusal) == nil {
			a.code = refusal.Code + refusal.Message
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attempts = append(w.attempts, a)
	return nil
}

// of are the attempts that came from an origin.
func (w *watched) of(origin string) (some []attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.attempts {
		if a.page == origin {
			some = append(some, a)
		}
	}
	return some
}

// pages serves the pages of the test, tells each where to go next, and takes
// their reports.
type pages struct {
	chat    string // origin of the chat
	token   string // of the user whose session it is, who is a presenter too
	next    map[string]string
	mu      sync.Mutex
	reports map[string]map[string]string // guarded by mu, by origin
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	origin := "http://" + r.Host
	switch {
	case r.URL.Path == "/page":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if origin == p.chat {
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "43", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
		}
		words, _ := json.Marshal(map[string]string{"chat": p.chat, "token": p.token, "next": p.next[origin]})
		fmt.Fprintf(w, "<!doctype html><iframe name=sink></iframe><script>const words = %s;\n%s</script>", words, attackScript)
	case r.URL.Path == "/report" && r.Method == http.MethodPost:
		var report map[string]string
		if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.reports[origin] = report
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (p *pages) report(origin string) map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reports[origin]
}

// attackScript tries everything that a page can to speak for whoever looks at
// it, and reports what it could see of it.
const attackScript = `
const socket = path => new Promise(done => {
	const protocols = path === "/v1/presenter" ? ["hanmadi", words.token] : [];
	const s = new WebSocket(words.chat.replace("http", "ws") + path, protocols);
	s.onopen = () => path === "/chatting" && s.send(JSON.stringify({id: "start", token: words.token}));
	s.onmessage = m => { done("got " + JSON.parse(m.data).type); s.close(); };
	s.onclose = e => done("closed " + e.code);
});
const post = (path, body, options) => fetch(words.chat + path, {method: "POST", body: JSON.stringify(body), credentials: "include", ...options})
	.then(r => r.type === "opaque" ? "opaque" : "status " + r.status, e => e.name);
const form = path => new Promise(done => {
	const f = document.createElement("form");
	f.method = "POST"; f.enctype = "text/plain"; f.target = "sink"; f.action = words.chat + path;
	const i = document.createElement("input");
	i.name = '{"text":"form","x":"'; i.value = '"}';
	f.append(i); document.body.append(f);
	document.querySelector("iframe").onload = () => done("submitted");
	f.submit();
});
const blind = {mode: "no-cors"}, json = {headers: {"Content-Type": "application/json"}};
(async () => {
	const line = "/v1/rooms/7/messages", old = "/send/message";
	const report = {
		link: await socket("/v1/presenter"),
		blind: await post(line, {text: "blind"}, blind),
		oldBlind: await post(old, {presenterIdx: 7, textMessage: "blind"}, blind),
		json: await post(line, {text: "json"}, json),
		oldJson: await post(old, {presenterIdx: 7, textMessage: "json"}, json),
		form: await form(line),
	};
	if (location.origin !== words.chat) report.oldLink = await socket("/chatting");
	await fetch("/report", {method: "POST", body: JSON.stringify(report)});
	if (words.next) location = words.next;
})();
`

// TestForeignPages has a real browser look at the platform's own page, at one on
// another port of the same host, whose requests carry the cookie, and at one of
// another site. The last two must get nowhere.
func TestForeignPages(t *testing.T) {
	watch := &watched{}
	front := httptest.NewUnstartedServer(watch)
	own := "http://" + front.Listener.Addr().String()
	p := newPlatform(t, "nginx", "HANMADI_LINK_ORIGINS="+own)
	p.roomServer.live("7", 881)

	site := &pages{chat: own, token: p.issuer.token(t, "43", "방송자"), reports: map[string]map[string]string{}}
	others := httptest.NewServer(site)
	t.Cleanup(others.Close)
	port := others.Listener.Addr().(*net.TCPAddr).Port
	sister, foreign := "http://"+others.Listener.Addr().String(), fmt.Sprintf("http://localhost:%d", port)
	site.next = map[string]string{own: sister + "/page", sister: foreign + "/page"}

	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: p.gateway.address})
	proxy.ModifyResponse = watch.note
	watch.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/page" || r.URL.Path == "/report" {
			site.ServeHTTP(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	})
	front.Start()
	t.Cleanup(front.Close)

	browse(t, own+"/page", func() bool { return site.report(foreign) != nil })

	checkReport(t, "the own page", site.report(own), map[string]string{"link": "got welcome", "blind": "status 415", "oldBlind": "status 400",
		"json": "status 201", "oldJson": "status 200", "form": "submitted"})
	// Without CORS a page of another origin is not even let ask for JSON.
	checkReport(t, "a sister page", site.report(sister), map[string]string{"link": "closed 1006", "oldLink": "closed 1006", "blind": "opaque", "oldBlind": "opaque",
		"json": "TypeError", "oldJson": "TypeError", "form": "submitted"})
	checkReport(t, "a foreign page", site.report(foreign), map[string]string{"link": "closed 1006", "oldLink": "closed 1006", "blind": "opaque", "oldBlind": "opaque",
		"json": "TypeError", "oldJson": "TypeError", "form": "submitted"})

	const noJSON, notAllowed = "Content-Type은 application/json이어야 합니다.", "허용되지 않은 사이트에서 온 연결입니다."
	checkAttempts(t, "a sister page", watch.of(sister), "same-site", map[string]string{
		"GET /v1/presenter": "403 origin.foreign", "GET /chatting": "403 origin.foreign",
		"POST " + linePath: "415 body.type", "POST /send/message": "400 " + noJSON,
		"OPTIONS " + linePath: "405 method.not_allowed", "OPTIONS /send/message": "405 method.not_allowed"})
	checkAttempts(t, "a foreign page", watch.of(foreign), "cross-site", map[string]string{
		"GET /v1/presenter": "403 origin.foreign", "GET /chatting": "403 origin.foreign",
		"POST " + linePath: "403 origin.foreign", "POST /send/message": "400 " + notAllowed,
		"OPTIONS " + linePath: "405 method.not_allowed", "OPTIONS /send/message": "405 method.not_allowed"})
	for _, a := range watch.of(sister) {
		if a.method == http.MethodPost && !a.session {
			t.Errorf("%+v: without the cookie there is nothing to defend", a)
		}
	}
	d := &day{platform: p, t: t}
	if got := strings.Join(d.said(), " "); got != "json json" {
		t.Errorf("the log has %q, want the own page's two lines alone", got)
	}
}

func checkReport(t *testing.T, page string, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s reports %v, want %v", page, got, want)
	}
	for what, outcome := range want {
		if got[what] != outcome {
			t.Errorf("%s, %s: got %q, want %q", page, what, got[what], outcome)
		}
	}
}

// checkAttempts wants each of the requests, none other, and each with its code.
func checkAttempts(t *testing.T, page string, got []attempt, site string, want map[string]string) {
	t.Helper()
	seen := map[string]bool{}
	for _, a := range got {
		site := site
		what, outcome := a.method+" "+a.path, fmt.Sprint(a.status, " ", a.code)
		seen[what] = true
		if a.method == http.MethodGet {
			site = "" // browsers do not say it of WebSockets; Origin is all there is
		}
		if outcome != want[what] || a.site != site {
			t.Errorf("%s, %s: got %s as %s, want %q as %s", page, what, outcome, a.site, want[what], site)
		}
	}
	for what := range want {
		if !seen[what] {
			t.Errorf("%s: %s never arrived", page, what)
		}
	}
}

// browse has Chromium look at a page until something is reached.
func browse(t *testing.T, page string, reached func() bool) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hanmadi-browser-") // not the test's own, which must be empty of writers at its end
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := startProcess(t, dir, []string{"HOME=" + dir}, installed(t, "chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--user-data-dir="+dir, page)
	if !within(4*patience, func() bool { return reached() || b.ended() }) || !reached() {
		t.Fatalf("the browser does not come to the end of its pages; it wrote:\n%s%s", b.out.String(), b.err.String())
	}
	b.signal(syscall.SIGTERM) // so that it ends its own processes
	b.wait()
}
