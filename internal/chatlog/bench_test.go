package chatlog

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

// BenchmarkAppend writes one row an append from many rooms at once; rows/group
// is what one fsync carried.
func BenchmarkAppend(b *testing.B) {
	for _, rooms := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("rooms=%d", rooms), func(b *testing.B) {
			s, err := OpenSQLite(b.Context(), b.TempDir()+"/log.db", nil)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var next, id atomic.Int64
			b.SetParallelism((rooms + 1) / 2)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				room := fmt.Sprint("room", next.Add(1))
				for seq := int64(0); pb.Next(); seq++ {
					row := logtest.Line(fmt.Sprintf("%026d", id.Add(1)), "오늘 방송 정말 재미있어요 다음에도 또 올게요")
					if _, err := s.Append(b.Context(), room, seq, []chat.Row{row}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
