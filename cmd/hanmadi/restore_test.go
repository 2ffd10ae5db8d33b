package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The way back from a backup, with the program's own command: rows after the
// backup are gone, and clients who have seen them are told so.
func TestRestoreABackup(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_BROADCAST_QUEUE_FOR=1h", "HANMADI_BROADCAST_END_AFTER=1h")
	s.openBroadcast("7")
	viewer := mint(t, "42", "")
	s.say(viewer, "7", "남는 말")
	s.stop()
	data, err := os.ReadFile(s.logPath())
	if err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup.db")
	if err := os.WriteFile(backup, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	lost := s.say(viewer, "7", "잃는 말")
	before := s.logID("7")

	running := startProcess(t, s.dir, s.env, binary, "log", "restore", "--from", backup)
	if code := running.wait(); code != exitFailed || !strings.Contains(running.err.String(), "another process") {
		t.Errorf("restore while a server runs: got exit code %d and %q, want %d", code, running.err.String(), exitFailed)
	}
	s.stop()
	said := startProcess(t, s.dir, s.env, binary, "log", "restore", "--from", backup).said()
	if !strings.Contains(said, "2 rows in 1 rooms") || !strings.Contains(said, ".before-") {
		t.Errorf("restore said %q, want the rows it found and where the old log is", said)
	}
	s.start()
	s.wantLine("7", "남는 말")
	if after := s.logID("7"); after == before {
		t.Errorf("log id: got %s before and after, want another", after)
	}
	var p problem
	status := request(t, http.MethodGet, s.url(fmt.Sprintf("/v1/rooms/7/events?after=%d&log=%s", lost.Seq-1, before)), "", "", &p)
	if status != http.StatusConflict || p.Code != "cursor.foreign" {
		t.Errorf("a cursor of the lost log: got status %d code %q, want 409 cursor.foreign", status, p.Code)
	}
}

// logID is the log that a room's head names.
func (s *server) logID(room string) string {
	s.t.Helper()
	var head struct{ Log string }
	if status := request(s.t, http.MethodGet, s.url("/v1/rooms/"+room+"/head"), "", "", &head); status != http.StatusOK || head.Log == "" {
		s.t.Fatalf("head: got status %d and %+v, want 200 and a log", status, head)
	}
	return head.Log
}
