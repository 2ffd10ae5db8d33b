package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

const samplePath = "../../hanmadi.sample.yaml"

func noEnv(string) (string, bool) { return "", false }

// configOf parses a file's text as serve would.
func configOf(t *testing.T, yaml string) (Config, *configFile) {
	t.Helper()
	file := &configFile{values: map[string]any{}, env: noEnv}
	if err := file.parse([]byte(yaml)); err != nil {
		t.Fatal(err)
	}
	var cmd struct {
		Config `embed:""`
	}
	parser, err := kong.New(&cmd, kong.Resolvers(file))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(nil); err != nil {
		t.Fatal(err)
	}
	return cmd.Config, file
}

// Every setting stands in the sample, and what the sample says is its default
// is its default.
func TestSampleShowsEverySettingAndItsDefault(t *testing.T) {
	data, err := os.ReadFile(samplePath)
	if err != nil {
		t.Fatal(err)
	}
	asIs, _ := configOf(t, string(data))
	defaults, _ := configOf(t, "")
	if got, want := fmt.Sprint(asIs), fmt.Sprint(defaults); got != want {
		t.Errorf("the sample as it is changes something:\n got %s\nwant %s", got, want)
	}
	setting := regexp.MustCompile(`(?m)^( *)# ([a-z0-9_]+:( .*)?)$`)
	open, file := configOf(t, setting.ReplaceAllString(string(data), "$1$2"))
	if got, want := fmt.Sprint(open), fmt.Sprint(defaults); got != want {
		t.Errorf("the sample's comments are not the defaults:\n got %s\nwant %s", got, want)
	}
	for _, key := range knownKeys() {
		secret := slices.ContainsFunc(new(Config).secrets(), func(s secret) bool { return s.key == key })
		if _, there := file.values[key]; !there && !secret {
			t.Errorf("the sample does not show %s", key)
		}
	}
}

func TestUnknownKeysNameTheNearest(t *testing.T) {
	for yaml, want := range map[string]string{
		"lisen: x":                         `"listen"`,
		"log:\n  ulr: x":                   `"log.url"`,
		"brodcast:\n  queue_for: 3s":       `"broadcast"`,
		"token:\n  secret_encodng: raw":    `"token.secret_encoding"`,
		"drain: 3":                         "must be a mapping",
		"- a":                              "must be a mapping",
		"listen: a\nlisten: b":             "listen",
		"token:\n  a: 1\n  secret_fil: x ": `token.`,
	} {
		file := &configFile{values: map[string]any{}, env: noEnv}
		err := file.parse([]byte(yaml))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error that names %s", yaml, err, want)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	good, _ := configOf(t, "")
	if err := good.check(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for key, change := range map[string]func(*Config){
		"listen":                         func(c *Config) { c.Listen = "8080" },
		"admin_listen":                   func(c *Config) { c.AdminListen = "" },
		"log.url":                        func(c *Config) { c.Log.URL = "postgres://x" },
		"log.tail":                       func(c *Config) { c.Log.Tail = 0 },
		"link.max":                       func(c *Config) { c.Link.Max = -1 },
		"link.origins":                   func(c *Config) { c.Link.Origins = []string{"https://a.example/path"} },
		"broadcast.queue_for":            func(c *Config) { c.Broadcast.QueueFor = 0 },
		"broadcast.end_after":            func(c *Config) { c.Broadcast.EndAfter = 1 },
		"limits.user_per_30s":            func(c *Config) { c.Limits.User = 0 },
		"limits.room_per_s":              func(c *Config) { c.Limits.Room = -1 },
		"limits.address_per_30s":         func(c *Config) { c.Limits.Address = 0 },
		"limits.attempts_per_30s":        func(c *Config) { c.Limits.Attempts = maxLimit + 1 },
		"limits.connections_per_address": func(c *Config) { c.Limits.Connections = -1 },
		"link.unstarted_per_address":     func(c *Config) { c.Link.Unstarted = 0 },
		"drain.over":                     func(c *Config) { c.Drain.Over = -1 },
		"link.origins: \"x\" ":           func(c *Config) { c.Link.Origins = []string{"x"} },
		"log.min_free":                   func(c *Config) { c.Log.MinFree = -1 },
		"link.per_address":               func(c *Config) { c.Link.PerAddress = 0 },
		"directory.url":                  func(c *Config) { c.Directory.URL = "room-server:8080" },
		"directory.timeout":              func(c *Config) { c.Directory.Timeout = -1 },
		"reconnect_url":                  func(c *Config) { c.Signalling.ReconnectURL = "/reconnect" },
	} {
		c := good
		change(&c)
		if err := c.check(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(key)) {
			t.Errorf("%s: got %v, want an error that names it", key, err)
		}
	}
}

// What serve would refuse when it opens its clients is refused before.
func TestAddressesOfServicesAreChecked(t *testing.T) {
	for address, well := range map[string]bool{"": true, "http://rooms:8080": true, "https://rooms.example/v2": true,
		"rooms:8080": false, "rooms": false, "ftp://rooms": false, "http://": false} {
		c, _ := configOf(t, "")
		c.Directory.URL, c.Signalling.ReconnectURL = address, address
		err := c.check()
		if got := err == nil; got != well {
			t.Errorf("%q: got %v, want it taken: %t", address, err, well)
		}
		if err != nil && (!strings.Contains(err.Error(), "directory.url") || !strings.Contains(err.Error(), "signalling.reconnect_url")) {
			t.Errorf("%q: got %v, want an error that names both settings", address, err)
		}
	}
}

func TestEnvNamesAreTheDocumentedOnes(t *testing.T) {
	for key, want := range map[string]string{"listen": "HANMADI_LISTEN", "log.url": "HANMADI_LOG_URL", "token.secret": "HANMADI_TOKEN_SECRET",
		"broadcast.queue_for": "HANMADI_BROADCAST_QUEUE_FOR", "limits.user_per_30s": "HANMADI_LIMITS_USER_PER_30S",
		"limits.room_per_s": "HANMADI_LIMITS_ROOM_PER_S", "limits.address_per_30s": "HANMADI_LIMITS_ADDRESS_PER_30S",
		"limits.attempts_per_30s": "HANMADI_LIMITS_ATTEMPTS_PER_30S", "link.unstarted_per_address": "HANMADI_LINK_UNSTARTED_PER_ADDRESS"} {
		if got := envName(key); got != want || !slices.Contains(knownKeys(), key) {
			t.Errorf("%s: got %s (known: %v), want %s", key, got, slices.Contains(knownKeys(), key), want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"kitten", "sitting", 3}, {"log.ulr", "log.url", 2}, {"listen", "listen", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// Nothing that a terminal or a reader could be fooled with passes as itself.
func TestVisibleText(t *testing.T) {
	for in, want := range map[string]string{
		"안녕 하세요":         "안녕 하세요",
		"\x1b[31mred":    `\x1b[31mred`,
		"a\nb\rc\td":     `a\nb\rc\td`,
		"👩‍👩‍👧❤️":        "👩‍👩‍👧❤️",
		"abc\u202edef":   `abc\u202edef`,
		"\u200bx\ufeff":  `\u200bx\ufeff`,
		"\x00\x7f\u009b": `\x00\x7f\u009b`,
	} {
		if got := visibleText(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestWhatServeCannotWorkWith(t *testing.T) {
	good, _ := configOf(t, "")
	if err := good.checkServe(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for key, change := range map[string]func(*Config){
		"admin_listen":         func(c *Config) { c.AdminListen = c.Listen },
		"broadcast.presenters": func(c *Config) { c.Broadcast.Presenters = "role" },
	} {
		c := good
		change(&c)
		if err := c.checkServe(); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: got %v, want an error that names it", key, err)
		}
	}
	anyPort := good
	anyPort.Listen, anyPort.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	if err := anyPort.checkServe(); err != nil {
		t.Errorf("two ports that the system chooses: %v", err)
	}
}
