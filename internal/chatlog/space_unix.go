//go:build linux || darwin || freebsd

package chatlog

import "syscall"

// diskFree is what a user who is not root can still write, in bytes, where the
// path is.
func diskFree(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
