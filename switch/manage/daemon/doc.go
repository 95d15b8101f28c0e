// Package daemon is a switch as a process: it reads what file and options say,
// claims the switch's name, opens ports of every kind, answers on the control
// socket, serves metrics, and tells systemd. What `kvswitch run` adds is flags
// and signals.
//
// A start is a reload from nothing. New makes a switch with what can't change
// while it runs: its name, its address, its workers, its host interface. All
// the rest, ports and entries above all, comes by config.Diff and config.Apply,
// as with Reload. The first uplink is opened before the switch is made, as the
// switch's address, and the MTU of the host interface and of new taps, are its.
//
// The package decides nothing about frames and parses no SPEC. It is where the
// kinds of ports are known, which ports lead to other switches, and which taps
// are the switch's to delete. It expects to be the process's only daemon: the
// Go runtime is set up for it, and systemd is told of one.
package daemon
