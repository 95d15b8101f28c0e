// Command kvswitch-demo shows what kvswitch is for, on one machine and in half a
// minute: two hosts, each with a switch, a cable between them and a real virtual
// machine, which get addresses by DHCP, ping each other and move 64 MiB over TCP.
//
// It prints every command as one would type it on the host in question, removes
// everything it made, also after Ctrl-C, and exits with status 1 if anything was
// not as it should be. It needs root, for network namespaces.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

func main() {
	program := flag.String("kvswitch", "./kvswitch", "the program to show")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	path, err := filepath.Abs(*program)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err == nil {
		err = netns.Program("demo", os.Stdout, func(tb netns.TB) { show(tb, path, os.Stdout) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kvswitch-demo:", err)
		os.Exit(1)
	}
}
