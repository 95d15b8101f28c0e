package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// rogue is a bridge that no bridge of a lab is better than.
var (
	rogueMAC = frame.MAC{0x52, 0x54, 0, 0xba, 0xd0, 1}
	rogue    = bridgeID{0, frame.MAC{0x52, 0x54, 0, 0xba, 0xd0, 0xff}}
)

// shape is the tree of a lab without the port that a guest tries it at: who is
// root, what every port is, how often that changed, and what it heard of changes.
func (l *treeLab) shape(but string) map[string]string {
	l.t.Helper()
	s := map[string]string{}
	for _, b := range l.bridges {
		d := b.treeMember.(kvsMember).tree()
		s[b.name] = fmt.Sprintf("root %s by %q, cost %d", d.RootID, d.RootPort, d.RootPathCost)
		if !strings.HasPrefix(but, b.name+" ") { // its own count includes that port's
			s[b.name] += fmt.Sprintf(", %d topology changes", d.TopologyChanges)
		}
		for _, p := range d.Ports {
			if name := b.name + " " + p.Name; name != but {
				s[name] = fmt.Sprintf("%s %s, %d role changes, %d BPDUs that tell of a change", p.Role, p.State, p.Counters.RoleChanges, p.Counters.RxTC)
			}
		}
	}
	return s
}

// keepsShape checks that the tree is as it was.
func (l *treeLab) keepsShape(was map[string]string, but string) {
	l.t.Helper()
	is := l.shape(but)
	for name := range was {
		if was[name] != is[name] {
			l.t.Errorf("%s is now %q, was %q", name, is[name], was[name])
		}
	}
}

// events starts kvswitch monitor and returns what gives its events so far.
func (k *kvs) events() func() []guardEventDoc {
	k.t.Helper()
	events, _ := k.monitor()
	return events
}

// monitor is events, with what gives the lines as they are.
func (k *kvs) monitor() (events func() []guardEventDoc, log func() string) {
	k.t.Helper()
	cmd := exec.Command(program, "monitor", "--json", "--run-dir", k.dir)
	p := netns.Start(k.t, cmd)
	return func() (events []guardEventDoc) {
		k.t.Helper()
		for line := range strings.Lines(p.Log()) {
			var e guardEventDoc
			if !strings.HasSuffix(line, "\n") {
				break // half written
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				k.t.Fatalf("monitor: %v in %q", err, line)
			}
			events = append(events, e)
		}
		return events
	}, p.Log
}

// guardEventDoc is a line of kvswitch monitor --json.
type guardEventDoc struct {
	Event string `json:"event"`
	Port  string `json:"port"`
	From  string `json:"from"`
	To    string `json:"to"`
	MAC   string `json:"mac"`
}

func TestGuestThatClaimsToBeRootCostsItselfOnly(t *testing.T) {
	t.Parallel()
	inKernelModes(t, testGuestThatClaimsToBeRootCostsItselfOnly)
}

func testGuestThatClaimsToBeRootCostsItselfOnly(t *testing.T) {
	t.Parallel()
	l := newTriangle(t)
	c := l.kvs("c")
	events := c.events()
	awaitMonitor(t, c, events)
	guest := l.chatter.stations[2]
	was := l.shape("c " + stationPort)

	attack := func() {
		t.Helper()
		trips := c.treePort(stationPort).Counters.GuardTrips
		guest.Send(rstBPDU(rogueMAC, rogue, 0, rogue, rstDesignated|rstProposal))
		netns.Await(t, startPatience, "the guest's port is disabled", func() error {
			if p := c.treePort(stationPort); p.State != "disabled" || p.Guard != "bpdu-guard" || p.GuardBridge != rogue.String() || p.Counters.GuardTrips != trips+1 {
				return fmt.Errorf("it is %+v", p)
			}
			return nil
		})
		l.keepsShape(was, "c "+stationPort)
	}
	forwards := func() error {
		if p := c.treePort(stationPort); p.State != "forwarding" || p.Guard != "" {
			return fmt.Errorf("it is %+v", p)
		}
		return nil
	}

	attack()
	trip := awaitEvent(t, events, "guard.trip", stationPort)
	if trip.MAC != rogueMAC.String() || trip.From != rogue.String() || trip.To != "bpdu-guard" {
		t.Errorf("the event is %+v, want the guest's MAC %v, bridge %v and guard bpdu-guard", trip, rogueMAC, rogue)
	}
	checkGuardLog(t, c.proc.Log())
	// By itself it does not come back: recover is not set.
	if p := c.treePort(stationPort); p.RecoverIn != 0 {
		t.Errorf("the port will recover in %d s without having been told to", p.RecoverIn)
	}
	c.do("stp", "port", stationPort, "recover=now")
	netns.Await(t, startPatience, "the port recovers by hand", forwards)
	awaitEvent(t, events, "guard.clear", stationPort)
	l.heals(l.now())

	c.do("stp", "port", stationPort, "recover=2s")
	at := time.Now()
	attack()
	if p := c.treePort(stationPort); p.RecoverIn == 0 {
		t.Errorf("with recover=2s, the port has no time to recover: %+v", p)
	}
	netns.Await(t, startPatience, "the port recovers by itself", forwards)
	t.Logf("recover=2s: forwards again %v after the BPDU", time.Since(at))
	l.heals(l.now())
	l.keepsShape(was, "c "+stationPort)
	l.noStorm()
}

// checkGuardLog looks for the line that tells the operator who it was.
func checkGuardLog(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		var entry struct {
			Level, Port, Guard, MAC, Bridge string
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Guard == "bpdu-guard" {
			if entry.Level != "WARN" || entry.Port != stationPort || entry.MAC != rogueMAC.String() || entry.Bridge != rogue.String() {
				t.Errorf("the log says %s, want port, MAC %v and bridge %v", line, rogueMAC, rogue)
			}
			return
		}
	}
	t.Errorf("nothing of the guard in the log:\n%s", log)
}

// awaitMonitor waits until events come in, by causing some that don't matter.
func awaitMonitor(t *testing.T, k *kvs, events func() []guardEventDoc) {
	t.Helper()
	netns.Await(t, startPatience, "monitor shows events", func() error {
		k.do("fdb", "flush")
		if len(events()) == 0 {
			return errors.New("none yet")
		}
		return nil
	})
}

// awaitEvent waits for the first event of that name on a port.
func awaitEvent(t *testing.T, events func() []guardEventDoc, name, port string) (found guardEventDoc) {
	t.Helper()
	netns.Await(t, startPatience, "event "+name, func() error {
		for _, e := range events() {
			if e.Event == name && e.Port == port {
				found = e
				return nil
			}
		}
		return errors.New("it is not among them")
	})
	return found
}

// The other guards, each against the BPDU that it is for.
func TestGuardsKeepTheTreeAsItIs(t *testing.T) {
	t.Parallel()
	inKernelModes(t, testGuardsKeepTheTreeAsItIs)
}

func testGuardsKeepTheTreeAsItIs(t *testing.T) {
	t.Parallel()
	l := newTriangle(t)
	b := l.kvs("b")
	guest := l.chatter.stations[1]
	b.do("stp", "port", stationPort, "bpdu-guard=off")
	superior := rstBPDU(rogueMAC, rogue, 0, rogue, rstDesignated|rstProposal)
	// A bridge that took b's port for its way to the root would say so.
	below := bridgeID{0xf000, rogue.addr}
	root := l.bridgeID("a")
	change := rstBPDU(rogueMAC, root, 1<<20, below, rstRoot|rstTopologyChange)
	for _, tc := range []struct {
		guard string
		bpdu  []byte
		state string // of the port, while such BPDUs come in
		shown string // as the guard that holds the port
	}{
		{"bpdu-filter", superior, "forwarding", ""},
		{"tcn-guard", change, "forwarding", ""},
		{"root-guard", superior, "discarding", "root-guard"},
	} {
		b.do("stp", "port", stationPort, tc.guard+"=on")
		was := l.shape("b " + stationPort)
		for range 3 { // a guard that holds once may not hold twice
			before := b.treePort(stationPort)
			guest.Send(tc.bpdu)
			netns.Await(t, startPatience, tc.guard+" holds", func() error {
				p := b.treePort(stationPort)
				if p.received()+p.Counters.RxDiscarded == before.received()+before.Counters.RxDiscarded {
					return errors.New("the BPDU has not come in")
				}
				if p.State != tc.state || p.Guard != tc.shown {
					return fmt.Errorf("the port is %+v", p)
				}
				return nil
			})
		}
		l.keepsShape(was, "b "+stationPort)
		b.do("stp", "port", stationPort, tc.guard+"=off")
		netns.Await(t, treePatience, "the port forwards after "+tc.guard, func() error {
			if p := b.treePort(stationPort); p.State != "forwarding" {
				return fmt.Errorf("it is %+v", p)
			}
			return nil
		})
	}
	// Without the guard, the last BPDU is news to everybody.
	told := func() (a, c int) {
		return l.kvs("a").treePort("b").Counters.RxTC, l.kvs("c").treePort("a").Counters.RxTC
	}
	a, c := told()
	guest.Send(change)
	netns.Await(t, startPatience, "a hears of the change from b, and c from a", func() error {
		if a1, c1 := told(); a1 == a || c1 == c {
			return fmt.Errorf("a was told %d times, was %d; c %d times, was %d", a1, a, c1, c)
		}
		return nil
	})
	l.converges("a")
	l.noStorm()
}

// bridgeID is the identifier of the bridge of that name.
func (l *treeLab) bridgeID(name string) (id bridgeID) {
	l.t.Helper()
	v, err := l.bridge(name).view()
	if err == nil {
		var prio, addr uint64
		_, err = fmt.Sscanf(v.id, "%4x.%12x", &prio, &addr)
		id.prio = uint16(prio)
		for i := range id.addr {
			id.addr[i] = byte(addr >> (40 - 8*i))
		}
	}
	if err != nil {
		l.t.Fatalf("bridge id of %s: %v", name, err)
	}
	return id
}
