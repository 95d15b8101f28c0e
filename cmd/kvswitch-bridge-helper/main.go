// Command kvswitch-bridge-helper is what QEMU's `-netdev bridge,helper=` runs: it
// gets a tap of a running switch, in the place of qemu-bridge-helper, whose
// arguments it takes and no others.
//
// It needs no privilege. Whoever makes it setuid all the same, as QEMU's is, gives
// away nothing: it gives up what it was given before all else, believes nothing of
// its environment then, and can do nothing but ask the switch.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/kvswitch/kvswitch/switch/host/sockfile"
	"github.com/kvswitch/kvswitch/switch/manage/qemu/bridgehelper"
)

// Exit codes, as the verbs of kvswitch have them.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(execute(os.Args[1:], os.Stderr)) }

func execute(words []string, stderr io.Writer) int {
	secure, err := bridgehelper.GiveUp()
	runDir := os.Getenv("KVSWITCH_RUN_DIR")
	if secure || runDir == "" {
		runDir = sockfile.RunDir
	}
	os.Clearenv()
	if err != nil {
		return say(stderr, err, exitFailed)
	}
	a, err := bridgehelper.ParseArgs(words)
	if err != nil {
		return say(stderr, err, exitUsage)
	}
	if err := bridgehelper.Run(context.Background(), runDir, a); err != nil {
		return say(stderr, err, exitFailed)
	}
	return exitDone
}

func say(stderr io.Writer, err error, code int) int {
	fmt.Fprintln(stderr, "kvswitch-bridge-helper:", err)
	return code
}
