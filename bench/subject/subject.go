// Package subject holds the contenders: each attaches some switch to the ports
// of a topology, as its users would, and lets go of it again.
//
// Contenders that are programs run privately, in the topology's namespace and
// directory: nothing of the machine's own configuration, databases or running
// switches is touched. The kernel ends them when this process dies.
//
// A Subject is used by one goroutine.
package subject

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// Subject is one contender in one topology.
type Subject interface {
	// Name is that of its Kind.
	Name() string
	// Attach joins all ports of the topology to the switch. It returns when the
	// switch says it is ready; frames may pass a little later.
	Attach(t *topo.Topology) error
	// Detach ends what Attach started. The ports stay.
	Detach() error
	// Processes are the ids of the contender's processes, empty when the kernel
	// does the work.
	Processes() []int
}

// Kind is a contender that may be attached any number of times.
type Kind struct {
	// Name is what reports call it.
	Name string
	// Family groups settings of one switch: "cable", "kernel", "testpmd",
	// "kvswitch", "ovs", "vde".
	Family string
	// About says in one line what is attached and how it is set.
	About string
	// Direct asks for a topology without ports to attach to.
	Direct bool
	// Bare asks for a topology whose far ends the contender makes.
	Bare bool
	// VhostUser has guests attached by a socket where others have taps.
	VhostUser bool
	// Absent says why the contender can't run on this machine; nil error if it
	// can.
	Absent func() error
	// Version is what the contender calls itself.
	Version func() string
	// New makes an unattached contender.
	New func() Subject
}

// Paths are the ways from the contenders to the far ends.
var Paths = []string{"veth", "tap", "vhost-user", "vm"}

// Reference is the Kind that ratios are taken against on a path.
func Reference(path string) string {
	if path == "vhost-user" {
		return "testpmd"
	}
	return "kernel"
}

// Ageing is how long contenders remember an address: long enough for one that is
// stopped while others have their turn to forget nothing meanwhile.
const Ageing = time.Hour

// Kinds are all contenders on a path, in the order of reports: ceiling,
// reference, the reference tuned, kvswitch, the others.
func Kinds(path string) []Kind {
	switch path {
	case "vhost-user":
		return append([]Kind{testpmdKind()}, kvswitchKinds(path)...)
	case "vm":
		return slices.Concat(kernelKinds()[:1], guestKinds(), ovsKinds()[:1])
	}
	var kinds []Kind
	if path == "veth" {
		kinds = append(kinds, cableKind())
	}
	kinds = append(kinds, kernelKinds()...)
	kinds = append(kinds, kvswitchKinds(path)...)
	kinds = append(kinds, ovsKinds()...)
	if path == "veth" {
		kinds = append(kinds, vdeKind())
	}
	return kinds
}

// settle is how long a contender may take to come up or go down.
const settle = 15 * time.Second

// need reports the first program that is not installed.
func need(pkg string, programs ...string) error {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not installed (Debian package %s)", p, pkg)
		}
	}
	return nil
}

// firstLine runs a command and returns its first line of output, or "".
func firstLine(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil && len(out) == 0 {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// program is the common part of contenders that are processes.
type program struct {
	procs  []*netns.Proc
	closes []func() error
}

// start runs a command in the switch's namespace.
func (p *program) start(t *topo.Topology, cmd *exec.Cmd) {
	p.procs = append(p.procs, t.Switch.Start(cmd))
}

// Processes implements Subject.
func (p *program) Processes() []int {
	pids := make([]int, len(p.procs))
	for i, proc := range p.procs {
		pids[i] = proc.Pid()
	}
	return pids
}

// stop ends the processes, last started first.
func (p *program) stop() error {
	var errs []error
	for i := len(p.procs) - 1; i >= 0; i-- {
		// How it ends is its own affair, as long as it does.
		var exit *exec.ExitError
		if err := p.procs[i].Stop(settle); err != nil && !errors.As(err, &exit) {
			errs = append(errs, err)
		}
	}
	p.procs = nil
	for _, c := range p.closes {
		errs = append(errs, c())
	}
	p.closes = nil
	return errors.Join(errs...)
}

// appears waits for a file, such as a control socket, and gives up when one of
// the processes has ended.
func (p *program) appears(path string) error {
	deadline := time.Now().Add(settle)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, proc := range p.procs {
			select {
			case <-proc.Done():
				return fmt.Errorf("wait for %s: a program ended: %s", path, lastLine(proc.Log()))
			default:
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for %s: not there after %v", path, settle)
		}
		time.Sleep(pause)
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
