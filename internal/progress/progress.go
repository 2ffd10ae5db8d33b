// Package progress shows how far a long job is, on a terminal and nowhere else.
// It exists to confine the library that draws the bar.
package progress

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Bar is the progress of one job. The zero value shows nothing. It is not safe
// for concurrent use.
type Bar struct {
	bar *progressbar.ProgressBar
}

// New makes a bar on w, or one that shows nothing when w is not a terminal: in
// a file or a pipe it would be noise.
func New(w io.Writer, what string) *Bar {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return &Bar{}
	}
	return newOn(w, what, 100*time.Millisecond)
}

func newOn(w io.Writer, what string, throttle time.Duration) *Bar {
	return &Bar{progressbar.NewOptions64(-1, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
		progressbar.OptionThrottle(throttle), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(),
		progressbar.OptionFullWidth(), progressbar.OptionSpinnerType(14))}
}

// Shown reports whether anybody sees it, and a total is worth finding out.
func (b *Bar) Shown() bool { return b.bar != nil }

// Set says how much of the whole is done. A total below 1 is not known.
func (b *Bar) Set(done, total int64) {
	if b.bar == nil {
		return
	}
	if total > 0 && total != b.bar.GetMax64() {
		b.bar.ChangeMax64(total)
	}
	_ = b.bar.Set64(done) // a terminal that went away is no failure of the job
}

// Done takes the bar off the terminal.
func (b *Bar) Done() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}
