package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/wire"
)

// commandTimeout bounds what Run and Try wait for.
const commandTimeout = 90 * time.Second

// receive hands replies to those who wait for them.
func (g *Guest) receive() {
	for {
		var r wire.Reply
		if err := g.conn.Read(&r); err != nil {
			g.hangUp(err)
			return
		}
		if r.ID == 0 {
			select {
			case g.booted <- struct{}{}:
			default: // the boot before this one was never asked for
			}
			continue
		}
		g.mu.Lock()
		waiter := g.pending[r.ID]
		delete(g.pending, r.ID)
		g.mu.Unlock()
		if waiter != nil {
			waiter <- r
		}
	}
}

// hangUp tells everybody who waits that no reply will come.
func (g *Guest) hangUp(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken = fmt.Errorf("line to the guest: %w", err)
	for id, waiter := range g.pending {
		close(waiter)
		delete(g.pending, id)
	}
}

// AwaitBoot waits until the guest runs commands, after Launch, a reset or a
// reboot.
func (g *Guest) AwaitBoot() {
	g.tb.Helper()
	ctx, cancel := context.WithTimeout(g.tb.Context(), bootTimeout)
	defer cancel()
	if err := g.awaitBoot(ctx); err != nil {
		g.tb.Fatalf("boot %s: %v", g.name, err)
	}
}

func (g *Guest) awaitBoot(ctx context.Context) error {
	select {
	case <-g.booted:
		return nil
	case <-g.ended():
		return fmt.Errorf("QEMU ended (%v): %s\n%s", g.proc.Err(), g.proc.Log(), g.consoleTail())
	case <-ctx.Done():
		return fmt.Errorf("%w; console:\n%s", ctx.Err(), g.consoleTail())
	}
}

// ended is closed when QEMU has; it never is for a QEMU that is not ours.
func (g *Guest) ended() <-chan struct{} {
	if g.proc == nil {
		return nil
	}
	return g.proc.Done()
}

// Exec runs a shell command in the guest and returns what it wrote to standard
// output and standard error and its exit status; 128 and more is a signal. It
// returns when the shell ends, whatever it left in the background. The error is
// for a command that could not be run or did not end before ctx, which kills
// it.
func (g *Guest) Exec(ctx context.Context, command string) (output string, status int, err error) {
	r, err := g.ask(ctx, wire.Request{Op: wire.OpRun, Command: command})
	return string(r.Data), r.Code, err
}

// Try runs a shell command in the guest for up to 90 s. An exit status other
// than 0 is an error. The last newline of the output is left out.
func (g *Guest) Try(command string) (string, error) {
	ctx, cancel := context.WithTimeout(g.tb.Context(), commandTimeout)
	defer cancel()
	out, status, err := g.Exec(ctx, command)
	if err == nil && status != 0 {
		err = fmt.Errorf("exit status %d", status)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", command, err)
	}
	return strings.TrimSuffix(out, "\n"), err
}

// Run is Try for commands that must succeed.
func (g *Guest) Run(command string) string {
	g.tb.Helper()
	out, err := g.Try(command)
	if err != nil {
		g.tb.Fatalf("in %s: %v\n%s", g.name, err, out)
	}
	return out
}

// Put writes a file of up to some MiB into the guest.
func (g *Guest) Put(path string, mode fs.FileMode, data []byte) {
	g.tb.Helper()
	ctx, cancel := context.WithTimeout(g.tb.Context(), commandTimeout)
	defer cancel()
	if _, err := g.ask(ctx, wire.Request{Op: wire.OpPut, Path: path, Mode: uint32(mode.Perm()), Data: data}); err != nil {
		g.tb.Fatalf("put %s into %s: %v", path, g.name, err)
	}
}

// Get reads a file of the guest.
func (g *Guest) Get(path string) []byte {
	g.tb.Helper()
	ctx, cancel := context.WithTimeout(g.tb.Context(), commandTimeout)
	defer cancel()
	r, err := g.ask(ctx, wire.Request{Op: wire.OpGet, Path: path})
	if err != nil {
		g.tb.Fatalf("get %s from %s: %v", path, g.name, err)
	}
	return r.Data
}

// ask sends a request and waits for its reply.
func (g *Guest) ask(ctx context.Context, req wire.Request) (wire.Reply, error) {
	reply := make(chan wire.Reply, 1)
	g.mu.Lock()
	if g.broken != nil {
		defer g.mu.Unlock()
		return wire.Reply{}, g.broken
	}
	g.last++
	req.ID = g.last
	g.pending[req.ID] = reply
	g.mu.Unlock()
	if err := g.conn.Write(req); err != nil {
		return wire.Reply{}, err
	}
	select {
	case r, ok := <-reply:
		switch {
		case !ok:
			return r, fmt.Errorf("guest is gone: %w", g.broken)
		case r.Error != "":
			return r, errors.New(r.Error)
		}
		return r, nil
	case <-ctx.Done():
		g.mu.Lock()
		delete(g.pending, req.ID)
		g.mu.Unlock()
		if req.Op == wire.OpRun {
			_ = g.conn.Write(wire.Request{Op: wire.OpKill, Target: req.ID})
		}
		return wire.Reply{}, ctx.Err()
	}
}

// Lease asks DHCP for an address for an interface and returns it. It keeps
// trying for as long as Run waits.
func (g *Guest) Lease(ifname string) netip.Addr {
	g.tb.Helper()
	g.Run(fmt.Sprintf("udhcpc -i %s -n -q -t 30 -T 1", ifname))
	return g.Addr(ifname)
}

// Addr is the interface's first IPv4 address.
func (g *Guest) Addr(ifname string) netip.Addr {
	g.tb.Helper()
	line := g.Run(fmt.Sprintf("ip -4 -o addr show dev %s | head -n 1", ifname))
	for field := range strings.FieldsSeq(line) {
		if p, err := netip.ParsePrefix(field); err == nil {
			return p.Addr()
		}
	}
	g.tb.Fatalf("%s in %s has no address: %q", ifname, g.name, line)
	return netip.Addr{}
}

// Proc is the QEMU process; nil if somebody else started it.
func (g *Guest) Proc() *netns.Proc { return g.proc }

// Console is what the guest's kernel and agent have written to the serial line.
func (g *Guest) Console() string {
	b, _ := os.ReadFile(g.console)
	return string(b)
}

func (g *Guest) consoleTail() string {
	lines := strings.Split(strings.TrimSpace(g.Console()), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// PowerOff lets the guest end by itself and waits for QEMU.
func (g *Guest) PowerOff() {
	g.tb.Helper()
	ctx, cancel := context.WithTimeout(g.tb.Context(), commandTimeout)
	defer cancel()
	_, _, err := g.Exec(ctx, "poweroff -f")
	select {
	case <-g.proc.Done():
	case <-ctx.Done():
		g.tb.Fatalf("power off %s: %v (%v)", g.name, ctx.Err(), err)
	}
}

// Reboot restarts the guest's system, which must be able to
// ([Options].KeepOnReset), and waits until it runs commands again. Nothing else
// may be running in it.
func (g *Guest) Reboot() {
	g.tb.Helper()
	ctx, cancel := context.WithTimeout(g.tb.Context(), bootTimeout)
	defer cancel()
	go g.Exec(ctx, "reboot -f") // is never answered
	if err := g.awaitBoot(ctx); err != nil {
		g.tb.Fatalf("reboot %s: %v", g.name, err)
	}
}
