package e2e

import "testing"

// TestDifferentialAgainstKernelBridge is the oracle test: whatever the kernel's
// bridge does with a frame, kvswitch does, but for the differences below.
func TestDifferentialAgainstKernelBridge(t *testing.T) {
	d := newDuel(t, differentialPorts, "kernel bridge", newKernelBridge, "kvswitch", func(s *star) subject { return onStar(s) })
	if err := d.run(differentialFrames, 3); err != nil {
		t.Fatal(err)
	}
}
