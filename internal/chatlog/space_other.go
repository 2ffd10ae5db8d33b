//go:build !(linux || darwin || freebsd)

package chatlog

import "errors"

// diskFree is not known on this system: appends stop when a write fails, and
// not before.
func diskFree(string) (int64, error) { return 0, errors.ErrUnsupported }
