package qemu

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/qemu/bridgehelper"
)

// inNamespace marks the process that runs the tests: the same program again, in
// a network namespace of its own, so that every thread of it is in there and
// the taps it makes are gone when it ends, however it ends.
const inNamespace = "KVSWITCH_TEST_IN_NAMESPACE"

// asHelper makes the program a bridge helper with this run directory, as
// `kvswitch bridge-helper` is.
const asHelper = "KVSWITCH_TEST_AS_HELPER"

// asQEMU makes the program one that holds the descriptors it was given, under
// whatever arguments, until its standard input ends.
const asQEMU = "KVSWITCH_TEST_AS_QEMU"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asHelper); dir != "" {
		a, err := bridgehelper.ParseArgs(os.Args[1:])
		if err == nil {
			err = bridgehelper.Run(context.Background(), dir, a)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(asQEMU) != "" {
		io.Copy(io.Discard, os.Stdin)
		return
	}
	if os.Getenv(inNamespace) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if _, ok := err.(*exec.ExitError); !ok {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}

// needTaps is for tests that make network devices, which only TestMain's second
// process may.
func needTaps(t *testing.T) {
	t.Helper()
	netns.RequirePrivilege(t)
	if os.Getenv(inNamespace) == "" {
		t.Fatal("not in a network namespace of its own")
	}
}

// patience is how long a test waits for something that is sure to come.
const patience = 10 * time.Second

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// checkNothingLeft fails the test if it ends with more descriptors or network
// devices than it began with.
func checkNothingLeft(t *testing.T) {
	t.Helper()
	fds, links := descriptors(t), netdevs(t)
	t.Cleanup(func() {
		for deadline := time.Now().Add(patience); descriptors(t) > fds || netdevs(t) > links; {
			if time.Now().After(deadline) {
				t.Errorf("%d descriptors and %d netdevs, %d and %d when the test began", descriptors(t), netdevs(t), fds, links)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func netdevs(t *testing.T) int {
	t.Helper()
	l, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// fakePorts is a switch that remembers what it was asked.
type fakePorts struct {
	mu     sync.Mutex
	specs  map[string]string // SPEC by port name
	refuse error             // AddPort's answer
}

func (p *fakePorts) AddPort(spec config.Spec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return p.refuse
	}
	name := spec.Name
	if _, err := netlink.LinkByName(name); err != nil {
		return fmt.Errorf("add port %s: %w", name, err)
	}
	if p.specs == nil {
		p.specs = map[string]string{}
	}
	if _, ok := p.specs[name]; ok {
		return fmt.Errorf("add port %s: it exists", name)
	}
	p.specs[name] = spec.String()
	return nil
}

func (p *fakePorts) DelPort(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.specs[name]; !ok {
		return fmt.Errorf("no port %s", name)
	}
	delete(p.specs, name)
	return nil
}

func (p *fakePorts) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for n := range p.specs {
		names = append(names, n)
	}
	return names
}

func (p *fakePorts) spec(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.specs[name]
}
