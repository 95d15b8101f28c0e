package subject

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/kvswitch/kvswitch/bench/testbed/dpdk"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// testpmdKind is DPDK's test program: no switch, but the fastest well-known way
// of a frame from one vhost-user port to another.
func testpmdKind() Kind {
	return Kind{
		Name: "testpmd", Family: "testpmd",
		About:  "DPDK testpmd, io forwarding between two vhost PMD ports on the second core: a wire, no learning",
		Absent: func() error { return need("dpdk-dev", "dpdk-testpmd") },
		Version: func() string {
			return firstLine("dpkg-query", "-W", "-f", "DPDK ${Version}", "dpdk-dev")
		},
		New: func() Subject { return &testpmd{} },
	}
}

type testpmd struct {
	program
	input *os.File // the other end of its standard input
}

func (p *testpmd) Name() string { return "testpmd" }

func (p *testpmd) Attach(t *topo.Topology) error {
	if len(t.Ports) != 2 {
		return fmt.Errorf("testpmd forwards between 2 ports, not %d", len(t.Ports))
	}
	// Without a standard input that stays open and silent it ends at once.
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	p.input = w
	defer r.Close()
	const memory = 128 // MiB
	args := []string{"--no-huge", "--no-shconf"}
	if dpdk.HugeMemory(memory) {
		args = []string{"--in-memory"}
	}
	args = append(args, "-m", strconv.Itoa(memory), "--no-pci", "--no-telemetry", "-l", "0,1") // the second core forwards
	for i, port := range t.Ports {
		args = append(args, "--vdev", fmt.Sprintf("net_vhost%d,iface=%s,queues=1", i, port.Socket))
	}
	args = append(args, "--", "--total-num-mbufs=16384", "--forward-mode=io", "--auto-start", "--no-mlockall")
	cmd := exec.Command("dpdk-testpmd", args...)
	cmd.Stdin = r
	if err := t.Do(func() { p.start(t, cmd) }); err != nil {
		return err
	}
	for _, port := range t.Ports {
		if err := p.appears(port.Socket); err != nil {
			return err
		}
	}
	return nil
}

// Detach ends its input first: some versions note a SIGTERM and go on reading.
func (p *testpmd) Detach() error {
	if p.input == nil {
		return nil
	}
	return errors.Join(p.input.Close(), p.stop())
}
