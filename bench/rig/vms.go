package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
	"github.com/kvswitch/kvswitch/bench/topo"
)

// VMs are two real guests on the two ports of a topology. They stay awake
// while other contenders have their turn: an idle guest costs next to nothing.
type VMs struct {
	top    *topo.Topology
	guests [2]*vm.Guest
}

func guestAddr(i int) string { return fmt.Sprintf("10.75.1.%d", i+1) }

// boot starts the guests. The contender must be awake. It takes some seconds.
func boot(top *topo.Topology, vhostUser bool) (*VMs, error) {
	v := &VMs{top: top}
	err := top.Do(func() {
		tb := top.TB()
		for i, p := range top.Ports[:2] {
			o := vm.Options{Name: fmt.Sprintf("guest%d", i), Host: top.Switch, Memfd: vhostUser}
			device := fmt.Sprintf("virtio-net-pci,netdev=n0,mac=52:54:00:6b:00:%02x", i+1)
			if vhostUser {
				o.Net = []string{
					"-chardev", "socket,id=c0,path=" + p.Socket,
					"-netdev", "vhost-user,id=n0,chardev=c0",
					// Without MSI-X: QEMU 7.2 without KVM dereferences nil when
					// a vhost device with it starts, whatever the back end.
					"-device", device + ",vectors=0",
				}
			} else {
				o.Net = []string{"-netdev", "tap,id=n0,fd=3", "-device", device}
				o.ExtraFiles = []*os.File{p.File}
			}
			v.guests[i] = vm.Launch(tb, o)
		}
		for i, g := range v.guests {
			g.AwaitBoot()
			g.Run(fmt.Sprintf("ip link set eth0 up && ip addr add %s/24 dev eth0", guestAddr(i)))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("boot guests: %w", err)
	}
	return v, nil
}

// await returns when the guests reach each other.
func (v *VMs) await() error {
	return v.top.Do(func() {
		netns.Await(v.top.TB(), Opening, "guests reach each other", func() error {
			_, err := v.guests[0].Try("ping -c 1 -W 1 " + guestAddr(1))
			return err
		})
	})
}

// command runs a command in a guest; its exit status does not matter.
func (v *VMs) command(ctx context.Context, guest int, format string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, _, err := v.guests[guest].Exec(ctx, fmt.Sprintf(format, args...))
	return out, err
}

// Ping records the round trips that the first guest's ping reports, a hundred a
// second. What got lost it only counts.
func (v *VMs) Ping(ctx context.Context, length time.Duration, h *hdrhistogram.Histogram) (gen.Pings, error) {
	n := max(5, int(length/(10*time.Millisecond)))
	out, err := v.command(ctx, 0, "ping -c %d -i 0.01 -W 1 %s", n, guestAddr(1))
	if err != nil {
		return gen.Pings{}, fmt.Errorf("ping between guests: %w", err)
	}
	rtts := roundTrips(out)
	for _, rtt := range rtts {
		if err := h.RecordValue(rtt.Nanoseconds()); err != nil {
			return gen.Pings{}, err
		}
	}
	return gen.Pings{Sent: n, Lost: max(0, n-len(rtts))}, nil
}

// roundTrips reads "time=0.123 ms" from every line of ping's output.
func roundTrips(out string) []time.Duration {
	var rtts []time.Duration
	for line := range strings.Lines(out) {
		_, after, found := strings.Cut(line, "time=")
		number, _, _ := strings.Cut(after, " ms")
		ms, err := strconv.ParseFloat(number, 64)
		if found && err == nil {
			rtts = append(rtts, time.Duration(ms*float64(time.Millisecond)))
		}
	}
	return rtts
}

// Bulk sends zeros over one TCP connection and returns what the second guest's
// network card received, in bit/s, headers included.
func (v *VMs) Bulk(ctx context.Context, length time.Duration) (bits float64, err error) {
	const port = 5001
	// Sessions of their own outlive the shell. busybox's nc ends with its standard
	// input, so that must stay open.
	if _, err := v.command(ctx, 1, "setsid sh -c 'sleep 300 | nc -l -p %d' >/dev/null 2>&1 &", port); err != nil {
		return 0, err
	}
	defer func() {
		for i := range v.guests {
			_, e := v.command(ctx, i, "killall nc sleep; true")
			err = errors.Join(err, e)
		}
	}()
	// The listener may need a moment; nc itself does not try again.
	_, err = v.command(ctx, 0, "setsid sh -c 'until nc %s %d </dev/zero; do sleep 0.1; done' >/dev/null 2>&1 &", guestAddr(1), port)
	if err != nil {
		return 0, err
	}
	gen.Wait(ctx, max(length/2, 500*time.Millisecond)) // for TCP to find its window
	begin, before, err := v.received(ctx)
	if err != nil {
		return 0, err
	}
	gen.Wait(ctx, length)
	end, after, err := v.received(ctx)
	if err != nil {
		return 0, err
	}
	return 8 * (after - before) / end.Sub(begin).Seconds(), nil
}

// received is what the second guest's network card has counted, in bytes, and
// when: in the middle of asking.
func (v *VMs) received(ctx context.Context) (at time.Time, bytes float64, err error) {
	begin := time.Now()
	out, err := v.command(ctx, 1, "cat /sys/class/net/eth0/statistics/rx_bytes")
	if err != nil {
		return at, 0, err
	}
	bytes, err = strconv.ParseFloat(strings.TrimSpace(out), 64)
	return begin.Add(time.Since(begin) / 2), bytes, err
}
