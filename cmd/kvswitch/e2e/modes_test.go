package e2e

import (
	"hash/fnv"
	"os"
	"strings"
	"testing"
)

// Modes of run --in-kernel.
const (
	inKernelAuto = "auto"
	inKernelOff  = "off"
)

// inKernelEnv names the mode that every test runs in; make test-all sets it to
// one after the other.
const inKernelEnv = "KVSWITCH_IN_KERNEL"

// modeMark goes before the mode in the name of a test that runs in both.
const modeMark = "in-kernel="

// inKernelModes runs a test with the kernel forwarding what it can, and with the
// workers carrying every frame. It is for tests of what becomes of frames; all
// others run in one mode.
func inKernelModes(t *testing.T, test func(*testing.T)) {
	modes := []string{inKernelAuto, inKernelOff}
	if mode := os.Getenv(inKernelEnv); mode != "" {
		modes = []string{mode}
	}
	for _, mode := range modes {
		t.Run(modeMark+mode, test)
	}
}

// inKernelMode is the mode that a test's switches run in: the one that
// inKernelModes put in its name, or that make test-all asks for, or else one that
// its name always gets.
func inKernelMode(t *testing.T) string {
	if _, after, ok := strings.Cut(t.Name(), "/"+modeMark); ok {
		mode, _, _ := strings.Cut(after, "/")
		mode, _, _ = strings.Cut(mode, "#") // a second one of that name
		return mode
	}
	if mode := os.Getenv(inKernelEnv); mode != "" {
		return mode
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	h := fnv.New32a()
	h.Write([]byte(name))
	return []string{inKernelAuto, inKernelOff}[h.Sum32()&1]
}

// inKernelOnly is for a test that has nothing to look at when the kernel forwards
// nothing: it runs with the kernel forwarding, whatever was asked for.
func inKernelOnly(t *testing.T) { t.Setenv(inKernelEnv, inKernelAuto) }

func TestEveryTestHasAModeAndKeepsIt(t *testing.T) {
	t.Setenv(inKernelEnv, "")
	var seen []string
	inKernelModes(t, func(t *testing.T) {
		t.Run("deeper", func(t *testing.T) { seen = append(seen, inKernelMode(t)) })
	})
	if got := strings.Join(seen, " "); got != "auto off" {
		t.Errorf("a test of both modes ran in %q", got)
	}
	first := inKernelMode(t)
	t.Run("deeper", func(t *testing.T) {
		if got := inKernelMode(t); got != first || got != inKernelAuto && got != inKernelOff {
			t.Errorf("mode %q for a test, %q for a part of it", first, got)
		}
	})
	t.Setenv(inKernelEnv, inKernelOff)
	seen = nil
	inKernelModes(t, func(t *testing.T) { seen = append(seen, inKernelMode(t)) })
	if got := strings.Join(append(seen, inKernelMode(t)), " "); got != "off off" {
		t.Errorf("asked for off, ran in %q", got)
	}
}
