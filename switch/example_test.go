package vswitch_test

import (
	"context"
	"fmt"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// A switch with three ports in memory: the first frame to a station nobody has
// heard of is flooded, the answer goes straight back.
func Example() {
	sw, err := vswitch.New(vswitch.Config{Name: "example", STP: vswitch.STPConfig{Mode: vswitch.ModeOff}})
	if err != nil {
		panic(err)
	}
	var ports [3]*mem.Port
	for i := range ports {
		ports[i] = mem.NewPort()
		sw.AddPort(fmt.Sprintf("p%d", i), ports[i], vswitch.NewPortConfig("memory"))
	}
	ctx, stop := context.WithCancel(context.Background())
	go sw.Run(ctx)

	alice, bob := mem.MAC(1), mem.MAC(2)
	ports[0].Inject(mem.Ethernet(bob, alice, "hello"))
	fmt.Println("p1 and p2 were sent", len(ports[1].Wait(1)), "and", len(ports[2].Wait(1)))
	ports[1].Inject(mem.Ethernet(alice, bob, "hello yourself"))
	fmt.Println("p0 was sent", len(ports[0].Wait(1)), "and p2", len(ports[2].Sent()))
	stop()
	// Output:
	// p1 and p2 were sent 1 and 1
	// p0 was sent 1 and p2 0
}
