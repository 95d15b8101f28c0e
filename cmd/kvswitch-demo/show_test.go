package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// TestDemonstration runs the whole of it, as make demo does, and checks that a
// reader sees what was promised.
func TestDemonstration(t *testing.T) {
	netns.RequirePrivilege(t)
	program := filepath.Join(netns.Dir(t), "kvswitch")
	build := exec.Command("go", "build", "-o", program, "github.com/kvswitch/kvswitch/cmd/kvswitch")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build kvswitch: %v\n%s", err, out)
	}
	var out bytes.Buffer
	defer func() {
		if t.Failed() {
			t.Logf("the demonstration so far:\n%s", out.String())
		}
	}()
	show(t, program, &out)
	for _, want := range []string{
		"a# kvswitch run --uplink eth0",
		"b# kvswitch run --uplink eth0",
		"a# kvswitch showmacs",
		"udhcpc: lease of 192.0.2.",
		"0% packet loss",
		"the same bytes",
		"never left the kernel",
		"All of it worked",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it shows nothing of %q", want)
		}
	}
}
