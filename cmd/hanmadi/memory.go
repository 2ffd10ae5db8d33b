package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// sparedHeap is how much garbage may gather before it is collected, in bytes.
	// With Go's default, a heap as small as ours was collected several times a
	// second.
	sparedHeap = 64 << 20

	leastPercent, mostPercent = 100, 400 // of the live heap, GOGC's unit
	memoryEvery               = 10 * time.Second
)

// keepMemory sets how much garbage may gather: sparedHeap, or as much as is in
// use where that is more. A server that is quiet collects and gives back what it
// does not need. GOGC in the environment has the say where it is set.
func keepMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(mostPercent)
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	read := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	var before uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(read)
		if cycles := read[1].Value.Uint64(); cycles == before {
			debug.FreeOSMemory()
			before = cycles + 1
		} else {
			before = cycles
		}
		debug.SetGCPercent(gcPercent(read[0].Value.Uint64()))
	}
}

// gcPercent is GOGC for a live heap.
func gcPercent(live uint64) int {
	return int(min(max(sparedHeap*100/max(live, 1), leastPercent), mostPercent))
}
