package main

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const unitPath = "../../deploy/systemd/hanmadi.service"

// analyze runs systemd-analyze, which needs no systemd to run on the machine.
func analyze(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatalf("this test needs systemd-analyze to judge the unit: apt-get install systemd (%v)", err)
	}
	data, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	return string(data), err
}

// unit is the service's settings by name, in the order of the file.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(unitPath)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		name, value, is := strings.Cut(strings.TrimSpace(line), "=")
		if is && !strings.HasPrefix(name, "#") {
			settings[name] = append(settings[name], value)
		}
	}
	return settings
}

// The unit is well formed, and what it leaves open is little: systemd's own
// measure runs from 0 to 10, and under 3 is asked for.
func TestUnitIsHardened(t *testing.T) {
	data, err := os.ReadFile(unitPath)
	if err != nil {
		t.Fatal(err)
	}
	// verify wants the program to be there, which is installed nowhere here.
	data = bytes.ReplaceAll(data, []byte("/usr/local/bin/hanmadi"), []byte(binary))
	path := filepath.Join(t.TempDir(), "hanmadi.service")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := analyze(t, "verify", path); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: got %v and %q, want no complaint", err, out)
	}
	if out, err := analyze(t, "security", "--offline=true", "--threshold=29", path); err != nil {
		t.Errorf("systemd-analyze security: got %v, want an exposure under 3.0:\n%s", err, out)
	}
}

// The unit says to the program what the program understands.
func TestUnitFitsTheProgram(t *testing.T) {
	settings := unit(t)
	for _, env := range settings["Environment"] {
		name, _, _ := strings.Cut(env, "=")
		known := func(key string) bool { return envName(key) == name }
		if name != "HANMADI_CONFIG" && !slices.ContainsFunc(knownKeys(), known) {
			t.Errorf("Environment=%s: there is no such setting", env)
		}
	}
	for _, credential := range settings["LoadCredential"] {
		name, _, _ := strings.Cut(credential, ":")
		used := func(env string) bool { return strings.HasSuffix(env, "=%d/"+name) }
		if !slices.ContainsFunc(settings["Environment"], used) {
			t.Errorf("LoadCredential=%s: nothing reads it", credential)
		}
	}
	defaults, _ := configOf(t, "")
	stop, err := time.ParseDuration(settings["TimeoutStopSec"][0])
	if least := defaults.Drain.Over + stopTime; err != nil || stop <= least {
		t.Errorf("TimeoutStopSec: got %s (%v), want more than drain.over and what follows it, %s", stop, err, least)
	}
	if got, want := settings["ExecReload"], "kill -HUP $MAINPID"; len(got) != 1 || got[0] != want {
		t.Errorf("ExecReload: got %q, want %q, which has the keys read again", got, want)
	}
}

// A whole life of the program (start, link, line, keys read again, a stop) makes
// no call that the unit's filter refuses, opens no socket of a family that it
// refuses, and maps no memory that can be written and run.
func TestUnitAllowsWhatTheProgramCalls(t *testing.T) {
	s := startUnderStrace(t, []string{"-s", "0"})
	link := startProcess(t, s.dir, []string{"HANMADI_URL=" + s.url(""), "HANMADI_TOKEN=" + mint(t, "7", "")}, binary, "listen")
	eventually(t, "the link stands", func() bool { return strings.Contains(link.err.String(), "linked") })
	s.say(mint(t, "42", ""), "7", "a line")
	if status := request(t, http.MethodGet, s.adminURL("/metrics"), "", "", nil); status != 0 && status != http.StatusOK {
		t.Errorf("/metrics: got status %d, want 200", status)
	}
	if err := syscall.Kill(s.pid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the keys are read again", func() bool { return strings.Contains(s.err.String(), "read again") })
	trace := s.end()

	allowed := allowedCalls(t, unit(t)["SystemCallFilter"])
	called := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\d+ +([a-z0-9_]+)\(`).FindAllStringSubmatch(trace, -1) {
		called[m[1]] = true
	}
	if !called["fdatasync"] && !called["fsync"] || !called["accept4"] {
		t.Fatalf("the trace is not the program's life: it called %v", called)
	}
	if os.Geteuid() == 0 {
		allowed["fchown"] = true // SQLite calls it for root only, who the unit's user is not
	}
	for name := range called {
		if !allowed[name] {
			t.Errorf("the program calls %s, which SystemCallFilter= refuses", name)
		}
	}
	families := strings.Fields(unit(t)["RestrictAddressFamilies"][0])
	for _, m := range regexp.MustCompile(`(?m) socket\((AF_[A-Z0-9]+)`).FindAllStringSubmatch(trace, -1) {
		if !slices.Contains(families, m[1]) {
			t.Errorf("the program opens a socket of %s, which RestrictAddressFamilies= refuses", m[1])
		}
	}
	if m := regexp.MustCompile(`(?m)^.*PROT_WRITE\|PROT_EXEC.*$`).FindString(trace); m != "" {
		t.Errorf("MemoryDenyWriteExecute= refuses this call: %s", m)
	}
}

// allowedCalls is what the lines of a unit's SystemCallFilter come to: names and
// groups of names, taken away by a line that begins with ~. A call that starts
// a program is always allowed.
func allowedCalls(t *testing.T, filter []string) map[string]bool {
	t.Helper()
	allowed := map[string]bool{"execve": true, "exit": true, "exit_group": true, "rt_sigreturn": true}
	for _, line := range filter {
		names, taken := strings.CutPrefix(line, "~")
		for _, name := range strings.Fields(names) {
			for _, call := range callsOf(t, name) {
				allowed[call] = !taken
			}
		}
	}
	return allowed
}

// callsOf is a call itself, or the calls of a group and of the groups in it.
func callsOf(t *testing.T, name string) (calls []string) {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	out, err := analyze(t, "syscall-filter", name)
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter %s: %v\n%s", name, err, out)
	}
	for line := range strings.Lines(out) {
		member := strings.TrimSpace(line)
		if member == "" || member == name || strings.HasPrefix(member, "#") {
			continue
		}
		calls = append(calls, callsOf(t, member)...)
	}
	return calls
}
