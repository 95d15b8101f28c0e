package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// unplugPatience is how long Detach waits for a guest. One that works answers
// in milliseconds, an emulated one in seconds.
const unplugPatience = 30 * time.Second

// Detach unplugs a device and returns when the guest has let go of it, after
// 30 s at most. A guest whose operating system does not answer (none is up yet,
// or it has no driver for hot unplug) keeps it: the error says so, and a second
// Detach waits again.
func (g *Guests) Detach(ctx context.Context, qmpPath, id string) error {
	ctx, cancel := context.WithTimeout(ctx, unplugPatience)
	defer cancel()
	g.mu.Lock()
	vm := g.guests[qmpPath]
	g.mu.Unlock()
	if vm == nil {
		return fmt.Errorf("detach %s from %s: guest %w", id, qmpPath, ErrNotAttached)
	}
	n := vm.find(id)
	if n == nil {
		return fmt.Errorf("detach %s from %s: device %w", id, qmpPath, ErrNotAttached)
	}
	select {
	case <-n.refused: // an answer that came when nobody waited any more
	default:
	}
	var refusal *CommandError
	err := vm.mon.Do("device_del", map[string]string{"id": id}, nil)
	if errors.As(err, &refusal) && strings.Contains(refusal.Desc, "in the process of unplug") {
		err = nil // asked for before; what counts is the answer
	}
	if err != nil {
		return fmt.Errorf("detach %s: %w", id, err)
	}
	select {
	case <-n.deleted:
		return nil
	case why := <-n.refused:
		return fmt.Errorf("detach %s: the guest refused: %s", id, why)
	case <-ctx.Done():
		return fmt.Errorf("detach %s: the guest has not let go of it: %w; it is still attached", id, ctx.Err())
	}
}

// drop takes a device's port away, once.
func (g *Guests) drop(vm *guest, id string) {
	vm.mu.Lock()
	i := slices.IndexFunc(vm.nics, func(n *plugged) bool { return n.ID == id })
	if i < 0 {
		vm.mu.Unlock()
		return
	}
	n := vm.nics[i]
	vm.nics = slices.Delete(vm.nics, i, i+1)
	vm.mu.Unlock()
	if err := g.ports.DelPort(n.Port); err != nil {
		g.cfg.Log.Warn("port of a detached guest is not removed", "port", n.Port, "error", err)
	}
	g.cfg.Log.Info("guest detached", "vm", vm.name, "id", n.ID, "port", n.Port)
	close(n.deleted)
}
