// Package daemon is a switch as a process: it reads what file and options say,
// claims the switch's name, opens ports of every kind, answers on the control
// socket, serves metrics, and tells systemd. What `kvswitch run` adds is flags
// and signals.
//
// A start is a reload from nothing: New makes an empty switch, and the host
// interface, ports and entries come by config.Diff and config.Apply, as with
// Reload. Only the first uplink is opened before, as the switch's address, and
// the MTU of the host interface and of new taps, are its.
//
// The package decides nothing about frames and parses no SPEC. It is where the
// kinds of ports are known, which ports lead to other switches, and which taps
// are the switch's to delete. It expects to be the process's only daemon: the
// Go runtime is set up for it, and systemd is told of one.
package daemon
