// Package dpdk runs DPDK's testpmd as the guests of vhost-user ports: its
// virtio-user network cards are a driver and a front end that are not ours. Each
// card sends on what another one receives, so that frames once launched go round
// for ever, at the pace of whoever is slowest, and none may be lost.
//
// The forwarding thread spins on Options.CPU between Go and Halt and sleeps
// otherwise. A Peer is used by one goroutine.
package dpdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// Program is what must be installed (Debian package dpdk-dev).
const Program = "dpdk-testpmd"

// Options of a peer. Sockets must be set, the rest has defaults.
type Options struct {
	Host    *netns.Host // nil is the namespace of this process
	Sockets []string    // of the vhost-user back ends: an even number of cards, forwarding in pairs
	First   int         // number of the first card's address, see MAC: even
	Device  string      // more properties of every card: "mrg_rxbuf=0,packed_vq=1"
	Queues  int         // pairs of each card, 1 if 0
	Size    int         // of frames, without frame check sequence, 64 if 0
	Ring    int         // entries of a ring, 256 if 0, which is the driver's default
	CPU     int         // where the forwarding thread runs
	// Huge takes memory from the machine's free huge pages.
	Huge bool
}

// MemoryMB is what a peer takes, in MiB.
const MemoryMB = 64

const (
	prefix   = "peer"
	patience = 15 * time.Second
	// mbufs are enough for two cards of two pairs of rings with 1024 entries,
	// and fit into MemoryMB.
	mbufs = 12_000
)

// Peer is a running testpmd.
type Peer struct {
	proc     *netns.Proc
	commands *os.File
	control  net.Conn
	cards    int
	launched bool
}

// MAC is the address of card n, counted from Options.First.
func MAC(n int) string { return fmt.Sprintf("02:00:00:00:d0:%02x", n+1) }

// HugeMemory reports whether the machine has mb MiB of huge pages to spare.
func HugeMemory(mb int) bool {
	text, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
	if err != nil {
		return false
	}
	free, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return err == nil && free*2 >= mb
}

// Start runs testpmd and returns when all its cards are negotiated. It ends with
// tb. What fails is fatal for tb.
func Start(tb netns.TB, o Options) *Peer {
	tb.Helper()
	dir := netns.Dir(tb)
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatalf("make pipe: %v", err)
	}
	defer r.Close()
	cmd := exec.Command(Program, arguments(o)...)
	cmd.Stdin = r
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+dir)
	p := &Peer{commands: w, cards: len(o.Sockets)}
	if o.Host != nil {
		p.proc = o.Host.Start(cmd)
	} else {
		p.proc = netns.Start(tb, cmd)
	}
	netns.Await(tb, patience, "testpmd is ready", func() error {
		select {
		case <-p.proc.Done():
			tb.Fatalf("testpmd ended: %v\n%s", p.proc.Err(), p.proc.Log())
		default:
		}
		if !strings.Contains(p.proc.Log(), "testpmd>") {
			return errors.New("no prompt yet")
		}
		return nil
	})
	tb.Cleanup(p.Close)
	p.control, err = net.Dial("unixpacket", filepath.Join(dir, "dpdk", prefix, "dpdk_telemetry.v2"))
	if err == nil {
		_, err = p.control.Read(make([]byte, 1024)) // who it is
	}
	if err != nil {
		tb.Fatalf("open testpmd's telemetry: %v", err)
	}
	return p
}

func arguments(o Options) []string {
	queues, size, ring := max(1, o.Queues), o.Size, o.Ring
	if size == 0 {
		size = 64
	}
	if ring == 0 {
		ring = 256
	}
	memory := []string{"--no-huge", "--no-shconf"}
	if o.Huge {
		memory = []string{"--in-memory", "--single-file-segments"}
	}
	args := append(memory, "--no-pci", "-m", strconv.Itoa(MemoryMB), "--file-prefix", prefix,
		"--lcores", fmt.Sprintf("0@(0,1),1@%d", o.CPU))
	for i, s := range o.Sockets {
		card := fmt.Sprintf("net_virtio_user%d,path=%s,mac=%s,queues=%d,queue_size=%d", i, s, MAC(o.First+i), queues, ring)
		if o.Device != "" {
			card += "," + o.Device
		}
		args = append(args, "--vdev", card)
	}
	n := strconv.Itoa
	args = append(args, "--", "-i", "--no-mlockall", "--no-flush-rx", "--forward-mode=io", "--total-num-mbufs", n(mbufs),
		"--txpkts", n(size), "--rxq", n(queues), "--txq", n(queues), "--rxd", n(ring), "--txd", n(ring))
	if queues > 1 { // one flow would be steered to one queue
		args = append(args, "--txonly-multi-flow")
	}
	for i := range o.Sockets {
		args = append(args, "--eth-peer", fmt.Sprintf("%d,%s", i, MAC(o.First+i^1)))
	}
	return args
}

// Close ends testpmd. Start has tb do it, too.
func (p *Peer) Close() {
	p.proc.Kill()
	p.commands.Close()
	if p.control != nil {
		p.control.Close()
	}
}

// command types a line at the prompt.
func (p *Peer) command(format string, args ...any) error {
	_, err := fmt.Fprintf(p.commands, format+"\n", args...)
	return err
}

// Go has the cards forward from now on. The first time, bursts of 32 frames are
// launched from every queue.
func (p *Peer) Go(bursts int) error {
	if p.launched {
		return p.command("start")
	}
	p.launched = true
	return p.command("start tx_first %d", bursts)
}

// Halt has the forwarding thread finish and sleep. Frames stay where they are.
func (p *Peer) Halt() error { return p.command("stop") }

// Counts of one card, since the start.
type Counts struct {
	Received uint64 `json:"ipackets"`
	Sent     uint64 `json:"opackets"`
	Bytes    uint64 `json:"ibytes"`  // received
	Missed   uint64 `json:"imissed"` // no buffer on the ring
	Refused  uint64 `json:"oerrors"` // by the ring
}

// Card reads the counters of one card.
func (p *Peer) Card(n int) (c Counts, err error) {
	if err := p.control.SetDeadline(time.Now().Add(patience)); err != nil {
		return c, err
	}
	question := "/ethdev/stats," + strconv.Itoa(n)
	if _, err := p.control.Write([]byte(question)); err != nil {
		return c, fmt.Errorf("ask testpmd: %w", err)
	}
	answer := make([]byte, 64<<10)
	k, err := p.control.Read(answer)
	if err != nil {
		return c, fmt.Errorf("ask testpmd: %w", err)
	}
	var doc map[string]Counts
	if err := json.Unmarshal(answer[:k], &doc); err != nil {
		return c, fmt.Errorf("testpmd's answer %s: %w", answer[:k], err)
	}
	return doc["/ethdev/stats"], nil
}
