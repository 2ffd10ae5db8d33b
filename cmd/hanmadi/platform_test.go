package main

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What follows plays a platform that hanmadi stands in: its gateway, which is
// the real nginx or Caddy with the sample configurations, its login service, its
// room server, its signalling server, which is the example, and its issuer of
// tokens.

// Secrets of the platform under test.
const (
	gatewaySecret    = "secret-of-the-tests-for-gateways-60aa8d01"
	signallingSecret = "secret-of-the-tests-for-signalling-7be2905c"
)

// The gateway connects from an address of its own, so that a test that goes
// around it comes from elsewhere.
const (
	nginxAddress = "127.0.0.9"
	caddyAddress = "127.0.0.1" // Caddy 2.6 cannot choose
)

// platform is all of it.
type platform struct {
	t          *testing.T
	issuer     *issuer
	login      *loginService
	roomServer *roomServer
	signalling *signallingServer
	hanmadi    *server
	gateway    *gateway
}

// newPlatform starts everything; gateway is nginx or caddy.
func newPlatform(t *testing.T, gateway string, env ...string) *platform {
	t.Helper()
	p := &platform{t: t, issuer: newIssuer(t), login: newLoginService(t), roomServer: newRoomServer(t), signalling: newSignallingServer(t)}
	from, front := nginxAddress, freeAddress(t)
	if gateway == "caddy" {
		from = caddyAddress
	}
	p.hanmadi = startServer(t, "serve", append([]string{
		"HANMADI_GATEWAY_FROM=" + from + "/32", "HANMADI_GATEWAY_SECRET=" + gatewaySecret,
		"HANMADI_TOKEN_JWKS_URL=http://" + p.issuer.address + "/jwks.json",
		"HANMADI_DIRECTORY_URL=http://" + p.roomServer.address,
		"HANMADI_SIGNALLING_RECONNECT_URL=http://" + p.signalling.address + "/reconnect", "HANMADI_SIGNALLING_SECRET=" + signallingSecret,
		"HANMADI_LINK_ORIGINS=http://" + front,
	}, env...)...)
	if gateway == "caddy" {
		p.gateway = newCaddy(t, front, p.hanmadi.listen, p.login.address)
	} else {
		p.gateway = newNginx(t, front, p.hanmadi.listen, p.login.address)
	}
	p.gateway.start()
	return p
}

// service is one of the platform's services, on an address that outlives it.
type service struct {
	t       *testing.T
	address string
	handler http.HandlerFunc
	server  *http.Server // nil while it is down
	failure atomic.Pointer[http.HandlerFunc]
}

func (s *service) init(t *testing.T, handler http.HandlerFunc) {
	t.Helper()
	s.t, s.address, s.handler = t, freeAddress(t), handler
	s.up()
	t.Cleanup(s.down)
}

// ServeHTTP implements [http.Handler].
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if fail := s.failure.Load(); fail != nil {
		(*fail)(w, r)
		return
	}
	s.handler(w, r)
}

func (s *service) up() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: patience}
	s.server = server
	go func() { _ = server.Serve(l) }() // until it is closed
}

// down ends the service and all its connections, as a killed process would.
func (s *service) down() {
	if s.server != nil {
		_ = s.server.Close()
		s.server = nil
	}
}

// fails makes the service misbehave until it is well again.
func (s *service) fails(how http.HandlerFunc) { s.failure.Store(&how) }
func (s *service) isWell()                    { s.failure.Store(nil) }

// misbehaviours are the ways in which a service that is there fails.
var misbehaviours = map[string]http.HandlerFunc{
	"slow": func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection would not be noticed
		select {
		case <-r.Context().Done():
		case <-time.After(patience):
		}
	},
	"wrong": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<html>{"data":{"alive":false}}</html>`) },
	"in error": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"data":{"alive":false}}`)
	},
	"closing": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"huge": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"data":{"alive":false,"x":"`)
		for filler := strings.Repeat("x", 64<<10); r.Context().Err() == nil; {
			if _, err := io.WriteString(w, filler); err != nil {
				return
			}
		}
	},
}

// issuer makes tokens and publishes the keys that verify them.
type issuer struct {
	service
	mu   sync.Mutex
	kid  string           // guarded by mu: of the key that signs
	sign crypto.Signer    // guarded by mu
	set  []map[string]any // guarded by mu
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.rotate(t, "EdDSA")
	i.init(t, func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": i.set})
	})
	return i
}

// rotate signs with a new key from now on; the old ones stay in the set.
func (i *issuer) rotate(t *testing.T, algorithm string) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kid = fmt.Sprintf("key-%d", len(i.set)+1)
	jwk := map[string]any{"kid": i.kid, "alg": algorithm, "use": "sig"}
	switch algorithm {
	case "EdDSA":
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		i.sign, jwk["kty"], jwk["crv"], jwk["x"] = private, "OKP", "Ed25519", b64(public)
	case "RS256":
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		i.sign, jwk["kty"], jwk["n"], jwk["e"] = private, "RSA", b64(private.N.Bytes()), b64(big.NewInt(int64(private.E)).Bytes())
	}
	i.set = append(i.set, jwk)
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func (i *issuer) token(t *testing.T, user, nickname string) string {
	t.Helper()
	return i.tokenOf(t, map[string]any{"userIdx": user, "nickname": nickname})
}

// tokenOf makes a token by hand, with none of our code.
func (i *issuer) tokenOf(t *testing.T, members map[string]any) string {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	alg, opts := "EdDSA", crypto.Hash(0)
	if _, isRSA := i.sign.(*rsa.PrivateKey); isRSA {
		alg, opts = "RS256", crypto.SHA256
	}
	header, err := json.Marshal(map[string]string{"alg": alg, "kid": i.kid, "typ": "JWT"})
	if err != nil {
		t.Fatal(err)
	}
	members = maps.Clone(members)
	members["exp"] = time.Now().Add(time.Hour).Unix()
	claims, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	signed := b64(header) + "." + b64(claims)
	message := []byte(signed)
	if opts == crypto.SHA256 {
		sum := sha256.Sum256(message)
		message = sum[:]
	}
	signature, err := i.sign.Sign(rand.Reader, message, opts)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + b64(signature)
}

// loginService knows who a session cookie belongs to.
type loginService struct{ service }

func newLoginService(t *testing.T) *loginService {
	t.Helper()
	l := &loginService{}
	l.init(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/whoami" || r.Method != http.MethodGet {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		c, err := r.Cookie("session")
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-User-Idx", c.Value)
		w.Header().Set("X-User-Nickname", "%EC%8B%9C%EC%B2%AD%EC%9E%90+"+c.Value) // 시청자 and the id
		w.WriteHeader(http.StatusOK)
	})
	return l
}

// roomServer knows who is live.
type roomServer struct {
	service
	mu    sync.Mutex
	alive map[string]int // guarded by mu: roomIdx of the presenters who are live
	mute  string         // guarded by mu: about whom nothing can be learned
}

func newRoomServer(t *testing.T) *roomServer {
	t.Helper()
	s := &roomServer{alive: map[string]int{}}
	s.init(t, func(w http.ResponseWriter, r *http.Request) {
		var question struct {
			PresenterIdx string `json:"presenterIdx"`
		}
		if err := json.NewDecoder(r.Body).Decode(&question); err != nil || r.URL.Path != "/check" || r.Method != http.MethodPost {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if question.PresenterIdx == s.mute {
			panic(http.ErrAbortHandler)
		}
		broadcast, alive := s.alive[question.PresenterIdx]
		if !alive {
			fmt.Fprint(w, `{"data":{"alive":false}}`)
			return
		}
		fmt.Fprintf(w, `{"data":{"alive":true,"roomIdx":%d}}`, broadcast)
	})
	return s
}

// muteOn fails for one presenter alone.
func (s *roomServer) muteOn(presenter string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = presenter
}

// live says that a presenter broadcasts, or with 0 that it does not.
func (s *roomServer) live(presenter string, broadcast int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alive[presenter] = broadcast; broadcast == 0 {
		delete(s.alive, presenter)
	}
}

// signallingServer is the example of the documentation, as a process.
type signallingServer struct {
	t       *testing.T
	address string
	binary  string
	secret  string // file
	*process
}

func newSignallingServer(t *testing.T) *signallingServer {
	t.Helper()
	dir := t.TempDir()
	s := &signallingServer{t: t, address: freeAddress(t), binary: filepath.Join(dir, "signalling-hook"), secret: filepath.Join(dir, "secret")}
	if out, err := exec.Command("go", "build", "-o", s.binary, "../../examples/signalling-hook").CombinedOutput(); err != nil {
		t.Fatalf("build the signalling server: %v\n%s", err, out)
	}
	if err := os.WriteFile(s.secret, []byte(signallingSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.up()
	return s
}

func (s *signallingServer) up() {
	s.t.Helper()
	s.process = startProcess(s.t, s.t.TempDir(), nil, s.binary, "-listen", s.address, "-secret-file", s.secret)
	awaitListening(s.t, s.process, s.address)
}

// awaitListening waits until a process takes connections.
func awaitListening(t *testing.T, p *process, address string) {
	t.Helper()
	listening := func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}
	if !within(patience, func() bool { return p.ended() || listening() }) || p.ended() {
		t.Fatalf("%s does not listen on %s (ended: %t):\n%s%s", p.cmd, address, p.ended(), p.out.String(), p.err.String())
	}
}

// gateway is nginx or Caddy with its sample configuration.
type gateway struct {
	t       *testing.T
	address string
	dir     string
	command []string
	env     []string
	*process
}

func (g *gateway) start() {
	g.t.Helper()
	g.process = startProcess(g.t, g.dir, g.env, g.command[0], g.command[1:]...)
	awaitListening(g.t, g.process, g.address)
}

func (g *gateway) url(path string) string { return "http://" + g.address + path }

// installed finds a program that tests need.
func installed(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", name)) // which is not in everybody's PATH
	}
	if err != nil {
		t.Fatalf("%s is missing: `make tools` installs it from Debian", name)
	}
	return path
}

// sampleConfig reads a configuration of deploy/gateway and puts a test's words in the
// place of the sample's, each of which must be there.
func sampleConfig(t *testing.T, name string, pairs ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "deploy", "gateway", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i+1 < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%s does not say %q any more, which the test replaces", name, pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

func writeIn(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newNginx prepares nginx as one process, so that killing it leaves no workers.
func newNginx(t *testing.T, address, hanmadi, login string) *gateway {
	t.Helper()
	dir := t.TempDir()
	var temporary strings.Builder // nginx's own folders are root's
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "    %s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	writeIn(t, dir, "nginx.conf", sampleConfig(t, "nginx.conf",
		"server 127.0.0.1:8080", "server "+hanmadi, "server 127.0.0.1:9000", "server "+login, "listen 127.0.0.1:8088", "listen "+address,
		"http {\n", "http {\n    access_log off;\n"+temporary.String(),
		"proxy_http_version 1.1;", "proxy_http_version 1.1;\n        proxy_bind "+nginxAddress+";"))
	writeIn(t, dir, "hanmadi-gateway-secret.conf", `map $host $gateway_secret { default "`+gatewaySecret+`"; }`)
	return &gateway{t: t, address: address, dir: dir, command: []string{installed(t, "nginx"), "-p", dir, "-c", filepath.Join(dir, "nginx.conf"),
		"-g", "daemon off; master_process off; error_log stderr; pid " + filepath.Join(dir, "nginx.pid") + ";"}}
}

func newCaddy(t *testing.T, address, hanmadi, login string) *gateway {
	t.Helper()
	dir := t.TempDir()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	writeIn(t, dir, "Caddyfile", sampleConfig(t, "Caddyfile", "127.0.0.1:8080", hanmadi, "127.0.0.1:9000", login, "http://:8088", "http://:"+port))
	return &gateway{t: t, address: address, dir: dir, env: []string{"HOME=" + dir, "HANMADI_GATEWAY_SECRET=" + gatewaySecret},
		command: []string{installed(t, "caddy"), "run", "--config", filepath.Join(dir, "Caddyfile"), "--adapter", "caddyfile"}}
}
