// Package bridgehelper is the program's side of QEMU's bridge helper: it reads
// the arguments that QEMU gives, asks a running switch for a tap, and hands its
// descriptor to QEMU. It also has the two packets that helper and switch exchange.
//
// It decides nothing and needs no right; the switch asks the kernel who is there.
// It is small because programs that somebody makes setuid are made of it: it
// imports nothing of kvswitch, reads no file and no environment. GiveUp is for
// such a program's first line.
//
// Its functions may be called from any goroutine, GiveUp before there are others.
package bridgehelper
