package netns

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// commandTimeout bounds every command that Run and Try wait for.
const commandTimeout = 60 * time.Second

// Host is one network namespace.
type Host struct {
	tb   TB
	name string
	ns   netns.NsHandle
	nl   *netlink.Handle
}

// quiet are the settings that a new namespace gets. A fresh one has the
// br_netfilter hooks on whatever the machine's own says, and then a kernel
// bridge drops frames that iptables would not like; and IPv6 sends
// solicitations and reports that no test asked for.
var quiet = []struct{ key, value string }{
	{"net/bridge/bridge-nf-call-iptables", "0"},
	{"net/bridge/bridge-nf-call-ip6tables", "0"},
	{"net/bridge/bridge-nf-call-arptables", "0"},
	{"net/ipv6/conf/all/disable_ipv6", "1"},
	{"net/ipv6/conf/default/disable_ipv6", "1"},
	{"net/ipv6/conf/default/accept_ra", "0"},
	{"net/ipv6/conf/default/autoconf", "0"},
	{"net/ipv6/conf/default/accept_dad", "0"},
}

// Host adds a host, with its loopback up and IPv6 off. Its name ends in label
// and can be given to ip netns exec.
func (l *Lab) Host(label string) *Host {
	l.tb.Helper()
	h, err := newHost(uniqueName() + "-" + label)
	if err != nil {
		l.tb.Fatalf("make host %s: %v", label, err)
	}
	h.tb = l.tb
	l.tb.Cleanup(func() {
		h.nl.Close()
		h.ns.Close()
		if err := netns.DeleteNamed(h.name); err != nil {
			l.tb.Errorf("delete host %s: %v", h.name, err)
		}
	})
	if err := h.Do(h.settle); err != nil {
		l.tb.Fatalf("set up host %s: %v", label, err)
	}
	return h
}

// newHost makes the namespace on a thread that ends afterwards, since that
// thread is in it then.
func newHost(name string) (h *Host, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var ns netns.NsHandle
		if ns, err = netns.NewNamed(name); err != nil {
			return
		}
		h = &Host{name: name, ns: ns}
	}()
	<-done
	if err != nil {
		return nil, err
	}
	if h.nl, err = netlink.NewHandleAt(h.ns); err != nil {
		h.ns.Close()
		_ = netns.DeleteNamed(name)
		return nil, err
	}
	return h, nil
}

func (h *Host) settle() error {
	for _, s := range quiet {
		if _, err := os.Stat(sysctlPath(s.key)); err != nil {
			continue // this kernel has no bridge or no IPv6
		}
		if err := os.WriteFile(sysctlPath(s.key), []byte(s.value), 0); err != nil {
			return err
		}
	}
	lo, err := h.nl.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.nl.LinkSetUp(lo)
}

func sysctlPath(key string) string { return filepath.Join("/proc/sys", key) }

// Name is the namespace's name, as in ip netns exec NAME.
func (h *Host) Name() string { return h.name }

// String is the host's name, for messages.
func (h *Host) String() string { return h.name }

// Netlink is a route netlink handle in the host's namespace, for what has no
// method here.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

// Do runs f in the host's namespace, on the calling goroutine and its locked
// thread. Goroutines that f starts are not in the namespace; sockets and
// descriptors that it opens stay there for good.
func (h *Host) Do(f func() error) error {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("get own namespace: %w", err)
	}
	if err := netns.Set(h.ns); err != nil {
		before.Close()
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", h.name, err)
	}
	defer func() {
		// A thread that can't go back stays locked, and ends with its goroutine.
		if err := netns.Set(before); err == nil {
			runtime.UnlockOSThread()
		}
		before.Close()
	}()
	return f()
}

// Sysctl sets a kernel parameter of the host, written with slashes, such as
// net/ipv6/conf/eth0/disable_ipv6.
func (h *Host) Sysctl(key, value string) {
	h.tb.Helper()
	err := h.Do(func() error { return os.WriteFile(sysctlPath(key), []byte(value), 0) })
	if err != nil {
		h.tb.Fatalf("set %s on %s: %v", key, h.name, err)
	}
}

// Try runs a command on the host and returns what it wrote to standard output
// and standard error, without the last newline. The command is killed after a
// minute, and when the test ends.
func (h *Host) Try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.tb.Context(), commandTimeout)
	defer cancel()
	var out strings.Builder
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := start(h.ns, cmd)
	if err != nil {
		return "", err
	}
	select {
	case <-p.done:
		err = p.err
	case <-ctx.Done():
		p.Kill()
		err = ctx.Err()
	}
	text := strings.TrimSuffix(out.String(), "\n")
	if err != nil {
		return text, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return text, nil
}

// Run is Try for commands that must succeed.
func (h *Host) Run(argv ...string) string {
	h.tb.Helper()
	out, err := h.Try(argv...)
	if err != nil {
		h.tb.Fatalf("on %s: %v\n%s", h.name, err, out)
	}
	return out
}
