package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/hanmadi/hanmadi/internal/seal"
)

// called is what a call of the program came to.
type called struct {
	code     int
	out, err string
}

// call runs the program in this process. A command that serves although it
// should not is told to stop at once, so that it fails its test and no more.
func call(args ...string) called {
	var out, err bytes.Buffer
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	code := run(args, streams{strings.NewReader(""), &out, &err}, signals)
	return called{code, out.String(), err.String()}
}

// want checks a call: its exit code, what stderr says, and that stdout is empty
// when the call failed.
func (c called) want(t *testing.T, code int, said ...string) {
	t.Helper()
	if c.code != code {
		t.Errorf("exit code: got %d, want %d; stdout:\n%sstderr:\n%s", c.code, code, c.out, c.err)
	}
	for _, s := range said {
		if !strings.Contains(c.err, s) {
			t.Errorf("stderr: got %q, want it to say %q", c.err, s)
		}
	}
	if code != exitOK && c.out != "" {
		t.Errorf("stdout of a call that failed: got %q, want nothing", c.out)
	}
}

func TestHelp(t *testing.T) {
	parser, err := kong.New(new(commands))
	if err != nil {
		t.Fatal(err)
	}
	calls := [][]string{{}, {"--help"}, {"-h"}}
	for _, leaf := range parser.Model.Leaves(false) {
		calls = append(calls, append(strings.Fields(leaf.Path()), "--help"))
	}
	if len(calls) < 10 {
		t.Fatalf("only %d calls for help: the commands were not found", len(calls))
	}
	for _, args := range calls {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			got := call(args...)
			got.want(t, exitOK)
			if !strings.HasPrefix(got.out, "Usage: hanmadi") {
				t.Errorf("stdout: got %q, want a usage", got.out)
			}
			if got.err != "" {
				t.Errorf("stderr: got %q, want nothing", got.err)
			}
		})
	}
}

// Help names what has no flag, too.
func TestHelpNamesTheSecrets(t *testing.T) {
	for _, command := range []string{"dev", "serve", "check-config"} {
		help := strings.Join(strings.Fields(call(command, "--help").out), " ")
		for _, s := range new(Config).secrets() {
			if !strings.Contains(help, envName(s.key)) {
				t.Errorf("%s --help does not name %s", command, envName(s.key))
			}
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, tc := range map[string]struct {
		args []string
		said string
	}{
		"unknown command":      {[]string{"nonsense"}, "nonsense"},
		"unknown flag":         {[]string{"serve", "--nonsense"}, "--nonsense"},
		"secrets have no flag": {[]string{"serve", "--token.secret=x"}, "--token.secret"},
		"a command half":       {[]string{"log"}, "restore"},
		"missing arguments":    {[]string{"say", "7"}, "<text>"},
		"missing flag":         {[]string{"log", "restore"}, "--from"},
		"not a number":         {[]string{"listen", "--after=x"}, "--after"},
		"not a duration":       {[]string{"check-config", "--drain.over=5"}, "--drain.over"},
		"not one of the words": {[]string{"check-config", "--logging.level=loud"}, "--logging.level"},
		"not an address":       {[]string{"serve", "--listen=8080"}, `listen: "8080" is not host:port`},
		"not a log":            {[]string{"serve", "--log.url=mongo:x"}, "sqlite:"},
		"no such config file":  {[]string{"serve", "--config=nowhere.yaml"}, "nowhere.yaml"},
		"no token to say with": {[]string{"say", "7", "x"}, "HANMADI_TOKEN"},
		"no url to say to":     {[]string{"say", "7", "x", "--url=chat.example"}, "chat.example"},
	} {
		t.Run(name, func(t *testing.T) {
			got := call(tc.args...)
			got.want(t, exitUsage, tc.said)
			for line := range strings.Lines(got.err) {
				if !strings.HasPrefix(line, "hanmadi: ") {
					t.Errorf("stderr line %q: want it to begin with the program's name", line)
				}
			}
		})
	}
}

func TestVersion(t *testing.T) {
	got := call("version")
	got.want(t, exitOK)
	if !strings.HasPrefix(got.out, "hanmadi ") || !strings.Contains(got.out, "go1.") {
		t.Errorf("version: got %q, want the program's and Go's", got.out)
	}
}

func TestServeWantsASecret(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, command := range []string{"serve", "check-config"} {
		got := call(command, "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0")
		got.want(t, exitUsage, "token.secret", "HANMADI_TOKEN_SECRET", "HANMADI_TOKEN_SECRET_FILE")
	}
	t.Setenv("HANMADI_TOKEN_SECRET", "short")
	call("serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0").want(t, exitUsage, "token.secret", "at least 32")
	entries, err := os.ReadDir(".")
	if err != nil || len(entries) > 0 {
		t.Errorf("a server that refuses to start left %v behind (%v)", entries, err)
	}
}

// settings runs check-config and gives what it shows.
func settings(t *testing.T, args ...string) map[string]any {
	t.Helper()
	got := call(append([]string{"check-config"}, args...)...)
	got.want(t, exitOK)
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(got.out), &tree); err != nil {
		t.Fatalf("check-config printed %q: %v", got.out, err)
	}
	flat := map[string]any{}
	for key, v := range tree {
		section, nested := v.(map[string]any)
		if !nested {
			flat[key] = v
		}
		for name, v := range section {
			flat[key+"."+name] = v
		}
	}
	return flat
}

func writeFile(t *testing.T, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Flags beat the environment, the environment beats the file, the file beats
// the defaults, whichever of them are there.
func TestOrderOfSettings(t *testing.T) {
	for _, tc := range []struct{ key, otherwise, file, env, flag string }{
		{"listen", "127.0.0.1:8080", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"},
		{"log.url", "sqlite:./data/hanmadi.db", "sqlite:/file.db", "sqlite:/env.db", "sqlite:/flag.db"},
		{"broadcast.queue_for", "30s", "1s", "2s", "3s"},
	} {
		for given := range 8 {
			t.Run(tc.key, func(t *testing.T) {
				t.Setenv("HANMADI_TOKEN_SECRET", tokenSecret)
				want, args := tc.otherwise, []string{}
				if given&1 != 0 {
					want = tc.file
					args = append(args, "--config="+writeFile(t, "h.yaml", fileFor(tc.key, tc.file)))
				}
				if given&2 != 0 {
					want = tc.env
					t.Setenv(envName(tc.key), tc.env)
				}
				if given&4 != 0 {
					want = tc.flag
					args = append(args, "--"+strings.ReplaceAll(tc.key, "_", "-")+"="+tc.flag)
				}
				if got := settings(t, args...)[tc.key]; got != want {
					t.Errorf("file %t, environment %t, flag %t: got %v, want %v", given&1 != 0, given&2 != 0, given&4 != 0, got, want)
				}
			})
		}
	}
}

// fileFor is a YAML file of settings, given as keys and values by turns.
func fileFor(keysAndValues ...string) string {
	tree := map[string]any{}
	for i := 0; i < len(keysAndValues); i += 2 {
		key, value := keysAndValues[i], keysAndValues[i+1]
		section, name, nested := strings.Cut(key, ".")
		if !nested {
			tree[key] = value
			continue
		}
		if tree[section] == nil {
			tree[section] = map[string]any{}
		}
		tree[section].(map[string]any)[name] = value
	}
	out, _ := yaml.Marshal(tree)
	return string(out)
}

// loaded is the configuration of a call, secrets included, whether it makes
// sense or not.
func loaded(t *testing.T, args ...string) Config {
	t.Helper()
	file, err := readConfigFile(args, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	var cmds commands
	parser, err := kong.New(&cmds, kong.PostBuild(nameVariables), kong.Resolvers(file))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"check-config"}, args...)); err != nil {
		t.Fatal(err)
	}
	if err := file.secrets(cmds.CheckConfig.Config.secrets()); err != nil {
		t.Fatal(err)
	}
	return cmds.CheckConfig.Config
}

// sample is a value of a setting, other than its default.
func sample(field reflect.StructField) string {
	if enum := field.Tag.Get("enum"); enum != "" {
		return enum[strings.LastIndexByte(enum, ',')+1:]
	}
	switch {
	case field.Type == reflect.TypeFor[time.Duration]():
		return "7s"
	case field.Type.Kind() == reflect.Bool && field.Tag.Get("default") == "true":
		return "false"
	case field.Type.Kind() == reflect.Bool:
		return "true"
	case field.Type.Kind() == reflect.Int || field.Type.Kind() == reflect.Int64:
		return "3"
	default:
		return "something"
	}
}

// samplesOf gives every setting that there is a sample, by its key.
func samplesOf(config reflect.Type, prefix string) map[string]string {
	samples := map[string]string{}
	for i := range config.NumField() {
		field := config.Field(i)
		switch {
		case field.Tag.Get("kong") == "-":
		case field.Type.Kind() == reflect.Struct:
			maps.Copy(samples, samplesOf(field.Type, prefix+field.Tag.Get("prefix")))
		default:
			samples[prefix+settingName(field)] = sample(field)
		}
	}
	return samples
}

// Every setting there is can be given in each of the three ways.
func TestEverySettingEveryWay(t *testing.T) {
	samples := samplesOf(reflect.TypeFor[Config](), "")
	if len(samples) < 15 {
		t.Fatalf("only %d settings: they were not found", len(samples))
	}
	for key, value := range samples {
		section, name, _ := strings.Cut(key, ".")
		check := func(t *testing.T, args ...string) {
			t.Helper()
			config := loaded(t, args...)
			got := config.effective()[section]
			if name != "" {
				got = got.(map[string]any)[name]
			}
			if shown := strings.Trim(fmt.Sprint(got), "[]"); shown != value {
				t.Errorf("%s: got %v, want %s", key, got, value)
			}
		}
		t.Run("file "+key, func(t *testing.T) { check(t, "--config", writeFile(t, "h.yaml", fileFor(key, value))) })
		t.Run("flag "+key, func(t *testing.T) { check(t, "--"+strings.ReplaceAll(key, "_", "-")+"="+value) })
		t.Run("environment "+key, func(t *testing.T) { t.Setenv(envName(key), value); check(t) })
	}
}

// Each secret can be given as itself or in a file, in the environment or in the
// configuration, in one way only.
func TestEverySecretEveryWay(t *testing.T) {
	const value = "first line of a secret\nsecond line of it"
	const digits = "0123456789012345678901234567890123456789"
	inFile := writeFile(t, "secret", value+"\n")
	for i, s := range new(Config).secrets() {
		ways := map[string]func(t *testing.T) []string{
			"environment":      func(t *testing.T) []string { t.Setenv(envName(s.key), value); return nil },
			"environment file": func(t *testing.T) []string { t.Setenv(envName(s.key+"_file"), inFile); return nil },
			"config": func(t *testing.T) []string {
				return []string{"--config", writeFile(t, "h.yaml", fileFor(s.key, value))}
			},
			"config, of digits": func(t *testing.T) []string {
				return []string{"--config", writeFile(t, "h.yaml", strings.Replace(fileFor(s.key, "X"), "X", digits, 1))}
			},
			"config file": func(t *testing.T) []string {
				return []string{"--config", writeFile(t, "h.yaml", fileFor(s.key+"_file", inFile))}
			},
		}
		for name, give := range ways {
			t.Run(s.key+" "+name, func(t *testing.T) {
				config := loaded(t, give(t)...)
				want := value
				if strings.HasSuffix(name, "digits") {
					want = digits
				}
				if got := *config.secrets()[i].value; got != want {
					t.Errorf("%s: got %q, want %q", s.key, got, want)
				}
				if shown := fmt.Sprint(config.effective()); strings.Contains(shown, "line of") {
					t.Errorf("%s shows: %s", s.key, shown)
				}
			})
		}
		t.Run(s.key+" both ways in the environment", func(t *testing.T) {
			t.Setenv(envName(s.key), value)
			t.Setenv(envName(s.key+"_file"), inFile)
			call("check-config").want(t, exitUsage, "environment", s.key, "exclude each other")
		})
		t.Run(s.key+" both ways in the config", func(t *testing.T) {
			t.Setenv("HANMADI_CONFIG", writeFile(t, "h.yaml", fileFor(s.key, value, s.key+"_file", inFile)))
			call("check-config").want(t, exitUsage, "config", s.key, "exclude each other")
		})
		t.Run(s.key+" in a file that is not there", func(t *testing.T) {
			t.Setenv(envName(s.key+"_file"), filepath.Join(t.TempDir(), "nowhere"))
			call("check-config").want(t, exitUsage, s.key+"_file", "nowhere")
		})
	}
}

func TestCheckConfigShowsNoSecret(t *testing.T) {
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HANMADI_TOKEN_SECRET", tokenSecret)
	t.Setenv("HANMADI_TOKEN_OPERATOR_SECRET_FILE", writeFile(t, "operator", operatorSecret))
	t.Setenv("HANMADI_CONFIG", writeFile(t, "h.yaml", fileFor("seal.key", string(key.PEM()))))
	shown := settings(t)
	for _, name := range []string{"token.secret", "token.operator_secret", "seal.key"} {
		if shown[name] != "(set)" {
			t.Errorf("check-config shows %s as %v, want (set)", name, shown[name])
		}
	}
	got := call("check-config")
	for line := range strings.Lines(tokenSecret + "\n" + operatorSecret + "\n" + string(key.PEM())) {
		if strings.Contains(got.out+got.err, strings.TrimSpace(line)) {
			t.Errorf("check-config shows a secret: %q", line)
		}
	}
}

// What was given in files is what the server works with, without the newline
// that editors put at their ends.
func TestServerUsesSecretsFromFiles(t *testing.T) {
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, "serve", "HANMADI_TOKEN_SECRET=", "HANMADI_TOKEN_OPERATOR_SECRET=",
		"HANMADI_TOKEN_SECRET_FILE="+writeFile(t, "a", tokenSecret+"\n"),
		"HANMADI_TOKEN_OPERATOR_SECRET_FILE="+writeFile(t, "b", operatorSecret+"\r\n"),
		"HANMADI_SEAL_KEY_FILE="+writeFile(t, "c", string(key.PEM())))
	s.start()
	s.openBroadcast("7")
	s.say(mint(t, "42", ""), "7", "한마디")
	if keys := fetchPublicKeys(t, s); keys[key.KID()] == nil {
		t.Errorf("keys: got %v, want the one with kid %s", keys, key.KID())
	}
}

func TestUnknownSettings(t *testing.T) {
	t.Setenv("HANMADI_TOKEN_SECRET", tokenSecret)
	for content, said := range map[string]string{
		"lisen: 127.0.0.1:1\n":                         `"listen"`,
		"log:\n  ulr: sqlite:x\n":                      `"log.url"`,
		"token:\n  secrt: x\n":                         `"token.secret"`,
		"broadcast:\n  queuefor: 1s\n":                 `"broadcast.queue_for"`,
		"log:\n  url: sqlite:x\n  url: sqlite:y\n":     "log.url stands there twice",
		"log:\n---\nlisten: 127.0.0.1:1\n":             "a second document",
		"token:\n  secret: [a, b]\n":                   "token.secret",
		"log: 5\n":                                     "log must be a mapping",
		"listen:\n  a: b\n":                            "listen must be a value",
		"- listen\n":                                   "must be a mapping",
		"broadcast:\n  end_after: 1s\n":                "broadcast.end_after",
		"link:\n  origins: [https://x.example/path]\n": "link.origins",
	} {
		path := writeFile(t, "h.yaml", content)
		got := call("check-config", "--config", path)
		got.want(t, exitUsage, said)
	}
}

func TestUnknownEnvironment(t *testing.T) {
	t.Setenv("HANMADI_TOKEN_SECRET", tokenSecret)
	for name, meant := range map[string]string{
		"HANMADI_LOG_ULR": "HANMADI_LOG_URL", "HANMADI_TOKEN_SECRET_FLIE": "HANMADI_TOKEN_SECRET_FILE", "HANMADI_LISTENS": "HANMADI_LISTEN",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "x")
			call("check-config").want(t, exitUsage, name, meant)
		})
	}
	// What Kubernetes sets in every pod for a service named hanmadi.
	for name, value := range map[string]string{
		"HANMADI_SERVICE_HOST": "10.0.0.1", "HANMADI_SERVICE_PORT": "8080", "HANMADI_SERVICE_PORT_HTTP": "8080",
		"HANMADI_PORT": "tcp://10.0.0.1:8080", "HANMADI_PORT_8080_TCP": "tcp://10.0.0.1:8080",
		"HANMADI_PORT_8080_TCP_ADDR": "10.0.0.1", "HANMADI_PORT_8080_TCP_PORT": "8080", "HANMADI_PORT_8080_TCP_PROTO": "tcp",
	} {
		t.Setenv(name, value)
	}
	call("check-config").want(t, exitOK)
}

// A second server on the same log would number rows that the first has
// numbered already.
func TestSecondServerOnTheSameLog(t *testing.T) {
	first := startServer(t, "serve")
	second := newServer(t, "serve", "HANMADI_LOG_URL=sqlite:"+first.logPath())
	second.launch()
	if code := second.wait(); code != exitFailed {
		t.Errorf("exit code of the second server: got %d, want %d", code, exitFailed)
	}
	for _, said := range []string{first.logPath(), "another process has this log open"} {
		if !strings.Contains(second.err.String(), said) {
			t.Errorf("stderr of the second server: got %q, want it to say %q", second.err.String(), said)
		}
	}
	if status := request(t, http.MethodGet, first.adminURL("/readyz"), "", "", nil); status != http.StatusOK {
		t.Errorf("readyz of the first server: got status %d, want 200", status)
	}
}
