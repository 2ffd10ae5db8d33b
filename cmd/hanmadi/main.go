// Command hanmadi is chat for live broadcasts: it decides whether a line may be
// said, writes it to a durable log, and hands it to the presenter's WebSocket.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, signals))
}
