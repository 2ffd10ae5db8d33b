package logtest

import (
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) chat.Log { return NewMemory("M") })
}
