package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// newCube is eight switches, each cabled to three others. Two of them speak
// 802.1D-1998, so that every kind of BPDU is on some cable.
func newCube(t *testing.T) *treeLab {
	t.Helper()
	plan := treePlan{name: "cube of kvswitch", pause: 20 * time.Millisecond}
	for i := range 8 {
		mode := "rstp"
		if i == 6 || i == 7 {
			mode = "stp"
		}
		plan.bridges = append(plan.bridges, treeBridge{name: fmt.Sprintf("s%d", i), priority: (i + 1) << 12, maker: kvswitchTree(mode)})
		for _, bit := range []int{1, 2, 4} {
			if i&bit == 0 {
				plan.cables = append(plan.cables, fmt.Sprintf("s%d-s%d", i, i|bit))
			}
		}
	}
	return newTreeLab(t, plan)
}

// capture is what the bridges of a lab send to each other.
type capture struct {
	ends   []captureEnd
	frames [][]byte // BPDUs, in the order in which they were taken
}

// captureEnd is one end of a cable, where it is heard what the other end sends.
type captureEnd struct {
	cable   string
	station *netns.Station
}

// startCapture listens at both ends of every cable.
func startCapture(l *treeLab) *capture {
	l.t.Helper()
	c := &capture{}
	for _, cable := range l.cables {
		c.ends = append(c.ends,
			captureEnd{cable.name, cable.a.host.Station(cable.aPort)},
			captureEnd{cable.name, cable.b.host.Station(cable.bPort)})
	}
	return c
}

// take takes the BPDUs that have arrived and says how many each cable had.
func (c *capture) take() map[string]int {
	count := map[string]int{}
	for _, e := range c.ends {
		for {
			f, ok := e.station.Recv(0)
			if !ok {
				break
			}
			if bytes.HasPrefix(f, bridgeGroup[:]) {
				c.frames = append(c.frames, f)
				count[e.cable]++
			}
		}
	}
	return count
}

// writeCapture makes a capture file of frames.
func writeCapture(t *testing.T, frames [][]byte) (path string) {
	t.Helper()
	path = filepath.Join(netns.Dir(t), "bpdus.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(1<<16, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, b := range frames {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(b), Length: len(b)}
		if err := w.WritePacket(info, b); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// tshark decodes a capture file and returns a row of fields for each frame.
func tshark(t *testing.T, path string, fields ...string) (rows [][]string) {
	t.Helper()
	_, err := exec.LookPath("tshark")
	netns.Need(t, "package tshark", err)
	args := []string{"-r", path, "-n", "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command("tshark", args...)
	cmd.Env = append(os.Environ(), "HOME="+netns.Dir(t)) // nobody's own settings
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "|"))
	}
	return rows
}

func TestTsharkHasNoComplaintAboutAnyBPDU(t *testing.T) {
	t.Parallel()
	l := newCube(t)
	c := startCapture(l)
	l.converges("s0")
	// A cut brings proposals, agreements, topology changes and TCNs.
	const cut = "s0-s1"
	took := l.heals(l.cut(cut))
	t.Logf("cube with two 802.1D-1998 bridges, one cable cut: traffic between all in %v", took)
	blocked := l.converges("s0", cut)
	c.take()
	settled := len(c.frames)
	heard := map[string]int{}
	netns.Await(t, treePatience, "every cable has BPDUs", func() error {
		for cable, n := range c.take() {
			heard[cable] += n
		}
		if len(heard) < len(l.cables)-1 {
			return fmt.Errorf("only %v", heard)
		}
		return nil
	})
	id, _ := l.bridge("s0").view()
	seen := map[string]int{}
	rows := tshark(t, writeCapture(t, c.frames), "frame.protocols", "_ws.malformed", "_ws.expert.message", "stp.type",
		"stp.root.prio", "stp.root.ext", "stp.root.hw", "stp.flags.proposal", "stp.flags.agreement", "stp.flags.tc")
	if len(rows) != len(c.frames) {
		t.Fatalf("tshark shows %d of %d frames", len(rows), len(c.frames))
	}
	for i, r := range rows {
		protocols, malformed, expert, kind := r[0], r[1], r[2], r[3]
		if protocols != "eth:llc:stp" || malformed != "" || expert != "" {
			t.Errorf("tshark says %q of % x", r, c.frames[i])
		}
		seen["type "+kind]++
		for j, flag := range []string{"proposal", "agreement", "topology change"} {
			if v := r[7+j]; v == "1" || v == "True" {
				seen[flag]++
			}
		}
		const tcn = "0x80" // names no root
		if root := tsharkBridgeID(r[4], r[5], r[6]); i >= settled && kind != tcn && root != id.id {
			t.Errorf("root is %s, want %s, in % x", root, id.id, c.frames[i])
		}
	}
	t.Logf("%d BPDUs decoded: %v; blocked are %v", len(rows), seen, blocked)
	for _, what := range []string{"type 0x00", "type 0x02", "type 0x80", "proposal", "agreement", "topology change"} {
		if seen[what] == 0 {
			t.Errorf("no BPDU had %s: nothing is proved of it", what)
		}
	}
	l.noStorm()
}

// tsharkBridgeID puts a bridge id together that tshark shows in three parts.
func tsharkBridgeID(prio, ext, addr string) string {
	p, _ := strconv.Atoi(prio)
	e, _ := strconv.Atoi(ext)
	return bridgeIDOf(fmt.Sprintf("%04x.%s", p+e, addr))
}
