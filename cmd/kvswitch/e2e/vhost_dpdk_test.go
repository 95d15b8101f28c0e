package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/dpdk"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// dpdkRun is how long frames go round in TestDPDKGuestsLoseAndDoubleNothing.
var dpdkRun = flag.Duration("dpdk-run", 5*time.Second, "how long DPDK's guests send for the count of frames")

// soak is how long TestDPDKGuestsJoinAndLeaveUnderLoad lasts.
var soak = flag.Duration("vhost-soak", 5*time.Second, "how long DPDK's guests join and leave a loaded switch")

// sockets runs a switch with vhost-user ports p0, p1, … and returns their paths.
// Each pair has a VLAN of its own: the cards send back whatever is flooded to them.
func sockets(t *testing.T, h *netns.Host, ports, queues int) (k *kvs, paths []string) {
	t.Helper()
	_, err := exec.LookPath(dpdk.Program)
	netns.Need(t, "package dpdk-dev", err)
	dir := netns.Dir(t)
	args := []string{"--no-host", "--vlan-filtering", "--stp", "off"} // BPDUs would come back, too
	for i := range ports {
		paths = append(paths, filepath.Join(dir, fmt.Sprintf("p%d.sock", i)))
		args = append(args, "--port", fmt.Sprintf("vhost-user:p%d,vlan=%d,queues=%d,path=%s", i, 1+i/2, queues, paths[i]))
	}
	return run(t, h, args...), paths
}

// dpdkPair runs a switch with two vhost-user ports and DPDK's driver behind both.
func dpdkPair(t *testing.T, o dpdk.Options, queues int) (*kvs, *dpdk.Peer) {
	t.Helper()
	h := netns.New(t).Host("h")
	var k *kvs
	k, o.Sockets = sockets(t, h, 2, queues)
	o.Host, o.Queues = h, queues
	p := dpdk.Start(t, o)
	k.awaitForwarding("p0", "p1")
	return k, p
}

// flow lets the frames that bursts launch go round for a while, ten times at
// least, which on a busy machine takes longer.
func flow(t *testing.T, p *dpdk.Peer, bursts, launched int, d time.Duration) {
	t.Helper()
	if err := p.Go(bursts); err != nil {
		t.Fatal(err)
	}
	time.Sleep(d)
	netns.Await(t, startPatience, "frames go round", func() error {
		c, err := cards(t, p)
		if err == nil && c[0].Received < uint64(10*launched) {
			err = fmt.Errorf("the cards count %+v of %d launched", c, launched)
		}
		return err
	})
	if err := p.Halt(); err != nil {
		t.Fatal(err)
	}
}

// cards are the counters of both cards.
func cards(t *testing.T, p *dpdk.Peer) (c [2]dpdk.Counts, err error) {
	t.Helper()
	for i := range c {
		if c[i], err = p.Card(i); err != nil {
			t.Fatal(err)
		}
	}
	return c, nil
}

// DPDK's virtio-user is a front end and a driver that are not ours: every frame
// size, one queue pair and two, mergeable buffers or not, in order or not.
func TestDPDKGuests(t *testing.T) {
	t.Parallel()
	for _, size := range []int{64, 1514} {
		for _, queues := range []int{1, 2} {
			for _, device := range []string{"mrg_rxbuf=1,in_order=1", "mrg_rxbuf=1,in_order=0", "mrg_rxbuf=0,in_order=1", "mrg_rxbuf=0,in_order=0"} {
				t.Run(fmt.Sprintf("%d bytes, %d queues, %s", size, queues, device), func(t *testing.T) {
					k, p := dpdkPair(t, dpdk.Options{Size: size, Device: device}, queues)
					detail := k.do("port", "show", "p0")
					for name, want := range map[string]bool{
						" mrg_rxbuf": strings.Contains(device, "mrg_rxbuf=1"),
						" in_order":  strings.Contains(device, "in_order=1"),
						" mq":        queues > 1,
					} {
						features := detail[strings.Index(detail, "\nfeatures"):]
						features, _, _ = strings.Cut(features[1:], "\n")
						if strings.Contains(features+" ", name+" ") != want {
							t.Errorf("%s negotiated is %t: %s", name, !want, features)
						}
					}
					const bursts = 2
					launched := bursts * 32 * queues
					flow(t, p, bursts, launched, 200*time.Millisecond)
					account(t, k, p, launched)
					for _, port := range []string{"p0", "p1"} {
						allRingsCarry(t, k, port, 2*queues)
					}
				})
			}
		}
	}
}

// account checks that no frame was lost or doubled: what the cards sent is what
// the switch received, what the switch sent is what they received or still have
// on their rings, and the frames on the way are those that were launched. It may
// take a moment until all that were on their way when the cards were halted have
// arrived. It returns what the cards count.
func account(t *testing.T, k *kvs, p *dpdk.Peer, launched int) (c [2]dpdk.Counts) {
	t.Helper()
	netns.Await(t, startPatience, "every frame is accounted for", func() (err error) {
		if c, err = cards(t, p); err != nil {
			return err
		}
		var wrong []error
		add := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
		var sent [2]uint64
		for i, name := range []string{"p0", "p1"} {
			p := k.port(name)
			if p.RX.Frames != c[i].Sent {
				add("%s: the card sent %d frames, the switch received %d", name, c[i].Sent, p.RX.Frames)
			}
			if c[i].Refused != 0 || p.RX.Dropped != 0 || p.TX.Dropped != 0 {
				add("%s: frames refused %d, drops %v", name, c[i].Refused, p.Drops)
			}
			sent[i] = p.TX.Frames
		}
		for i := range c {
			if sent[i] != c[1-i].Sent {
				add("card %d sent %d frames, the switch sent %d to the other", 1-i, c[1-i].Sent, sent[i])
			}
			// What a card received it sent with the other one; the rest lies in
			// its ring since it was halted.
			if onRing := sent[i] - c[i].Received; onRing > uint64(launched) {
				add("card %d received %d of %d frames that the switch sent: %d launched", i, c[i].Received, sent[i], launched)
			}
			if c[1-i].Sent != c[i].Received+uint64(launched) {
				add("card %d received %d frames and %d were launched, but the other one sent %d", i, c[i].Received, launched, c[1-i].Sent)
			}
		}
		return errors.Join(wrong...)
	})
	return c
}

func TestDPDKGuestsLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	for _, size := range []int{64, 1514} {
		k, p := dpdkPair(t, dpdk.Options{Size: size}, 1)
		const bursts = 4
		flow(t, p, bursts, bursts*32, *dpdkRun)
		c := account(t, k, p, bursts*32)
		t.Logf("%d bytes: %d frames each way in %v", size, c[0].Received, *dpdkRun)
		p.Close()
	}
}

// The packed ring is not offered: DPDK that prefers it works without.
func TestDPDKGuestThatPrefersThePackedRing(t *testing.T) {
	t.Parallel()
	k, p := dpdkPair(t, dpdk.Options{Device: "packed_vq=1"}, 1)
	if d := k.do("port", "show", "p0"); strings.Contains(d, "packed") {
		t.Errorf("port show: %s", d)
	}
	flow(t, p, 1, 32, 100*time.Millisecond)
	account(t, k, p, 32)
}

// Two guests send as fast as they can while others join, send, and are killed:
// the two never stall, and the switch keeps nothing of those that left.
func TestDPDKGuestsJoinAndLeaveUnderLoad(t *testing.T) {
	t.Parallel()
	h := netns.New(t).Host("h")
	k, paths := sockets(t, h, 4, 1)
	stay := dpdk.Start(t, dpdk.Options{Host: h, Sockets: paths[:2]})
	k.awaitForwarding("p0", "p1")
	if err := stay.Go(2); err != nil {
		t.Fatal(err)
	}
	visit := func() {
		guests := dpdk.Start(t, dpdk.Options{Host: h, Sockets: paths[2:], First: 2})
		defer func() {
			guests.Close()
			for _, p := range []string{"p2", "p3"} {
				k.awaitPort(p, "goes down", func(p portDoc) bool { return p.Link == "down" })
			}
		}()
		k.awaitForwarding("p2", "p3")
		if err := guests.Go(2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // of traffic, in the middle of which they are killed
		netns.Await(t, startPatience, "the visitors' frames go round", func() error {
			c, err := guests.Card(0)
			if err == nil && c.Received == 0 {
				err = errors.New("they have received none")
			}
			return err
		})
	}
	visit() // the first one makes the switch allocate what it keeps
	before := holds(t, k.proc)
	begin := time.Now()
	visits, last := 0, uint64(0)
	const launched = 2 * 32
	for time.Since(begin) < *soak {
		visit()
		visits++
		c, err := stay.Card(0)
		if err != nil {
			t.Fatal(err)
		}
		if c.Received == last {
			t.Fatalf("after %d visits nothing goes round any more", visits)
		}
		last = c.Received
	}
	after := holds(t, k.proc)
	c := [2]dpdk.Counts{}
	if err := stay.Halt(); err != nil {
		t.Fatal(err)
	}
	netns.Await(t, startPatience, "all frames are still there", func() (err error) {
		for i := range c {
			if c[i], err = stay.Card(i); err != nil {
				return err
			}
		}
		if c[1].Sent != c[0].Received+launched || c[0].Sent != c[1].Received+launched {
			return fmt.Errorf("the cards count %+v, %d were launched each way", c, launched)
		}
		return nil
	})
	t.Logf("%d visits in %v, %d frames each way meanwhile; before %+v, after %+v", visits, time.Since(begin).Round(time.Second), last, before, after)
	if after.files > before.files || after.maps > before.maps+8 || after.memory > before.memory+32<<10 { // the collector waits for some 20 MiB
		t.Errorf("the switch grows: before %+v, after %+v", before, after)
	}
}

// usage is what a process holds: descriptors, mappings, and KiB of memory of its
// own.
type usage struct{ files, maps, memory int }

func holds(t *testing.T, p *netns.Proc) (u usage) {
	t.Helper()
	var err error
	if u.files, err = p.Files(); err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	u.maps = strings.Count(string(maps), "\n")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, rss, _ := strings.Cut(string(status), "RssAnon:")
	if _, err := fmt.Sscan(rss, &u.memory); err != nil {
		t.Fatal(err)
	}
	return u
}
