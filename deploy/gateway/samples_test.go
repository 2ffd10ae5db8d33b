// Package gateway holds samples of gateways. nginx.conf and Caddyfile are run by
// the tests of cmd/hanmadi, with the program behind them.
package gateway

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// What the filter for Zuul decides is plain Java, and is compiled and run here.
func TestZuulsHeaders(t *testing.T) {
	javac, err := exec.LookPath("javac")
	if err != nil {
		t.Fatal("javac is missing: `make tools` installs it from Debian")
	}
	classes := t.TempDir()
	compile := exec.CommandContext(t.Context(), javac, "-Xlint:all", "-Werror", "--release", "11", "-encoding", "UTF-8", "-d", classes,
		filepath.Join("zuul", "GatewayHeaders.java"), filepath.Join("zuul", "GatewayHeadersTest.java"))
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(javac), "java"), "-ea", "-cp", classes, "hanmadi.gateway.GatewayHeadersTest").CombinedOutput()
	if err != nil || !regexp.MustCompile(`^checked [1-9]\d+\n$`).Match(out) {
		t.Fatalf("java: %v\n%s", err, out)
	}
}

// Samples that nothing here runs say so before anything else.
func TestWhatWasNotRunSaysSo(t *testing.T) {
	run := []string{"nginx.conf", "Caddyfile", "README.md", "samples_test.go", "GatewayHeaders.java", "GatewayHeadersTest.java"}
	said := 0
	for _, pattern := range []string{"*", "zuul/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if info, err := os.Stat(path); err != nil || info.IsDir() || slices.Contains(run, filepath.Base(path)) {
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(data), "\n")
			if !strings.Contains(first, "not run") && !strings.Contains(first, "neither compiled nor run") {
				t.Errorf("%s: the first line is %q, and does not say that it was not run", path, first)
			}
			said++
		}
	}
	if said != 2 {
		t.Errorf("%d samples that were not run, want Envoy's and Zuul's", said)
	}
}

// Envoy's sample is at least YAML with no key twice, and leaves out nothing of
// what the others take away.
func TestEnvoysSampleReads(t *testing.T) {
	data, err := os.ReadFile("envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var anything map[string]any
	if err := yaml.Unmarshal(data, &anything); err != nil || anything["static_resources"] == nil {
		t.Fatalf("envoy.yaml: %v, %v", err, anything)
	}
	for _, want := range []string{"x-forward-useridx", "x-forward-nickname", "x-forward-email", "x-gateway-secret", "DROP_HEADER", "websocket", "75s"} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("envoy.yaml does not say %s", want)
		}
	}
}
