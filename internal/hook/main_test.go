package hook

import (
	"os"
	"runtime"
	"testing"
)

// TestMain leaves the tests one processor: with two, the race detector of Go
// 1.26 may crash on timers of a synctest bubble.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	os.Exit(m.Run())
}
