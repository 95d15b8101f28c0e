package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program is the path of the program under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(withBinary(m.Run))
}

// withBinary finds the program or builds it, as it is shipped: static, and beside
// the one that its verb bench executes and the one that QEMU does.
func withBinary(run func() int) int {
	if program = os.Getenv("KVSWITCH_BIN"); program != "" {
		return run()
	}
	dir, err := os.MkdirTemp("", "kvswitch-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "kvswitch")
	const commands = "github.com/kvswitch/kvswitch/cmd/"
	build := exec.Command("go", "build", "-o", dir+"/", commands+"kvswitch", commands+"kvswitch-bench", commands+"kvswitch-bridge-helper")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build kvswitch: %v\n%s", err, out)
		return 1
	}
	return run()
}
