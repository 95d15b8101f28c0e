package qemu

import (
	"fmt"

	"github.com/digitalocean/go-qemu/qmp"
)

// follow acts on a guest's events until its monitor closes, and then takes all
// that is left of it away.
func (g *Guests) follow(vm *guest) {
	defer close(vm.ended)
	for e := range vm.mon.events {
		g.event(vm, e)
	}
	g.mu.Lock()
	if g.guests[vm.mon.path] == vm {
		delete(g.guests, vm.mon.path)
	}
	g.mu.Unlock()
	for _, n := range vm.all() {
		g.drop(vm, n.ID)
	}
}

// event acts on one event (QEMU QMP reference, net.json, qdev.json,
// run-state.json).
func (g *Guests) event(vm *guest, e qmp.Event) {
	device, _ := e.Data["device"].(string)
	switch e.Event {
	case "NIC_RX_FILTER_CHANGED":
		// QEMU sends no other until the filter is asked for, so a guest can't
		// flood us with these.
		name, _ := e.Data["name"].(string)
		g.learn(vm, name)
	case "DEVICE_DELETED":
		n := vm.find(device)
		if n == nil {
			return
		}
		// The backend stays when a device goes; with it goes the tap.
		if err := vm.mon.Do("netdev_del", map[string]string{"id": n.netdev()}, nil); err != nil {
			g.cfg.Log.Warn("tap of a detached guest is not removed", "vm", vm.name, "port", n.Port, "error", err)
		}
		g.drop(vm, device)
		if vm.change.TryLock() { // else whoever holds it will
			vm.releaseIfUnused()
			vm.change.Unlock()
		}
	case "DEVICE_UNPLUG_GUEST_ERROR":
		if n := vm.find(device); n != nil {
			select {
			case n.refused <- fmt.Sprint(e.Event):
			default:
			}
		}
	case "SHUTDOWN":
		g.links(vm, false)
	case "RESET":
		// With -no-shutdown a machine that had shut down starts again like this.
		g.links(vm, true)
		for _, n := range vm.all() {
			g.learn(vm, n.ID)
		}
	}
}

// links sets the links of all of a guest's ports up or down.
func (g *Guests) links(vm *guest, up bool) {
	for _, n := range vm.all() {
		if err := g.setLink(n.Port, up); err != nil {
			g.cfg.Log.Warn("link of a guest's port is not set", "port", n.Port, "up", up, "error", err)
		}
	}
}
