package logtest

import (
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) chat.Log { return NewMemory("M") })
}

func TestMemorySearch(t *testing.T) {
	RunSearch(t, func(*testing.T) Searchable { return NewMemory("M") })
}
