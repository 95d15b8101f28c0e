// Command mkguest prepares the guest that tests and the demonstration boot, and
// prints where it is. Run again it does nothing.
package main

import (
	"context"
	"fmt"
	"log"
	"os/signal"
	"syscall"

	"github.com/kvswitch/kvswitch/bench/testbed/vm/image"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	img, err := image.Ensure(ctx, log.Printf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("guest: Linux %s, %s, %s\n", img.Release, img.Kernel, img.Initrd)
}
