package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// treeLab is a network of bridges of any make: each on a host of its own, with
// cables between them and one station at each.
type treeLab struct {
	t       *testing.T
	name    string // for messages
	net     *netns.Lab
	far     *netns.Host // of the stations
	bridges []*treeBridge
	cables  []treeCable
	chatter *chatter // of the stations, from before there is any bridge
}

// treePlan says what a lab is made of.
type treePlan struct {
	name    string
	bridges []treeBridge  // name, priority and maker
	cables  []string      // "a-b": the port on a is called b, and the one on b, a; "a-b#2" is a second one, at b2 and a2
	pause   time.Duration // of the chatter
}

// treeBridge is one bridge of a lab.
type treeBridge struct {
	name     string
	priority int
	maker    treeMaker

	treeMember
	host  *netns.Host
	ports []string // towards other bridges
	dead  bool     // killed
}

// treeMaker starts a bridge on a host: spanning tree on, with the shortest
// timers it has, on ports towards other bridges and on the port of a station.
type treeMaker func(t *testing.T, b *treeBridge) treeMember

// treeMember is a running bridge.
type treeMember interface {
	// view is the tree as the bridge sees it now.
	view() (treeView, error)
}

// treeView is what a bridge knows of the tree.
type treeView struct {
	id, root string            // as 8000.0123456789ab
	states   map[string]string // by port; "forwarding" is what all makes call it
}

// stationPort is the port that a bridge has for its station.
const stationPort = "station"

// treeCable is a cable between ports of bridges a and b.
type treeCable struct {
	name         string
	a, b         *treeBridge
	aPort, bPort string
}

// newTreeLab lays the cables, lets the stations talk, and only then starts the
// bridges, so that a loop is there from the first moment.
func newTreeLab(t *testing.T, plan treePlan) *treeLab {
	t.Helper()
	l := &treeLab{t: t, name: plan.name, net: netns.New(t)}
	l.far = l.net.Host("stations")
	far := l.far
	var stations []*netns.Station
	for _, b := range plan.bridges {
		b.host = l.net.Host(b.name)
		l.net.Cable(b.host, stationPort, far, b.name)
		stations = append(stations, far.Station(b.name))
		l.bridges = append(l.bridges, &b)
	}
	for _, name := range plan.cables {
		l.lay(name)
	}
	l.chatter = startChatter(t, stations, plan.pause)
	for _, b := range l.bridges {
		b.treeMember = b.maker(t, b)
	}
	return l
}

// lay lays the cable of that name.
func (l *treeLab) lay(name string) {
	l.t.Helper()
	a, b, _ := strings.Cut(name, "-")
	b, number, _ := strings.Cut(b, "#")
	c := treeCable{name: name, a: l.bridge(a), b: l.bridge(b), aPort: b + number, bPort: a + number}
	l.net.Cable(c.a.host, c.aPort, c.b.host, c.bPort)
	c.a.ports, c.b.ports = append(c.a.ports, c.aPort), append(c.b.ports, c.bPort)
	l.cables = append(l.cables, c)
}

// bridge is the bridge of that name.
func (l *treeLab) bridge(name string) *treeBridge {
	l.t.Helper()
	i := slices.IndexFunc(l.bridges, func(b *treeBridge) bool { return b.name == name })
	if i < 0 {
		l.t.Fatalf("%s has no bridge %s", l.name, name)
	}
	return l.bridges[i]
}

// cable is the cable of that name.
func (l *treeLab) cable(name string) treeCable {
	l.t.Helper()
	i := slices.IndexFunc(l.cables, func(c treeCable) bool { return c.name == name })
	if i < 0 {
		l.t.Fatalf("%s has no cable %s", l.name, name)
	}
	return l.cables[i]
}

// cut pulls the cable out at a's end, which is set down, and returns when that
// was. b learns of it from its device, which has lost the carrier.
func (l *treeLab) cut(name string) moment {
	l.t.Helper()
	c := l.cable(name)
	at := time.Now()
	c.a.host.Down(c.aPort)
	return moment{at, l.chatter.rounds()}
}

// join plugs a cable back in.
func (l *treeLab) join(name string) {
	l.t.Helper()
	c := l.cable(name)
	c.a.host.Up(c.aPort)
}

// A moment is when something was done to a network: the time, and the first
// round of chatter after it.
type moment struct {
	at    time.Time
	round int
}

// treePatience is how long a network may take to agree. Bridges that speak
// 802.1D-1998 need max age and twice the forward delay, 14 seconds here.
const treePatience = 40 * time.Second

// converges waits until the bridges that live agree on a root, by its name, and
// block exactly as many cables between them as are too many for a tree, leaving
// out those that are cut. It returns the names of the blocked ones.
func (l *treeLab) converges(root string, cut ...string) (blocked []string) {
	l.t.Helper()
	netns.Await(l.t, treePatience, l.name+" converges on root "+root, func() (err error) {
		blocked, err = l.agreed(root, cut)
		return err
	})
	return blocked
}

func (l *treeLab) agreed(root string, cut []string) (blocked []string, err error) {
	views := map[*treeBridge]treeView{}
	for _, b := range l.bridges {
		if b.dead {
			continue
		}
		if views[b], err = b.view(); err != nil {
			return nil, fmt.Errorf("ask %s: %w", b.name, err)
		}
	}
	want := views[l.bridge(root)].id
	for b, v := range views {
		if v.root != want {
			return nil, fmt.Errorf("root of %s is %s, want %s", b.name, v.root, want)
		}
	}
	whole := 0
	for _, c := range l.cables {
		if c.a.dead || c.b.dead || slices.Contains(cut, c.name) {
			continue
		}
		whole++
		a, b := views[c.a].states[c.aPort], views[c.b].states[c.bPort]
		switch {
		case a == "forwarding" && b == "forwarding":
		case a == "forwarding" || b == "forwarding":
			blocked = append(blocked, c.name)
		default:
			return nil, fmt.Errorf("cable %s is %s at one end and %s at the other", c.name, a, b)
		}
	}
	if n := whole - len(views) + 1; len(blocked) != n {
		return nil, fmt.Errorf("blocked are %v, want %d", blocked, n)
	}
	return blocked, nil
}

// now is this moment.
func (l *treeLab) now() moment { return moment{time.Now(), l.chatter.rounds()} }

// heals waits until every station hears every other one again, but for those
// whose bridge is dead, and returns how long that took from the moment m.
func (l *treeLab) heals(m moment) time.Duration {
	l.t.Helper()
	var out []int
	for i, b := range l.bridges {
		if b.dead {
			out = append(out, i)
		}
	}
	var took time.Duration
	netns.Await(l.t, treePatience, "traffic in "+l.name+" heals", func() (err error) {
		took, err = l.chatter.healed(m, out)
		return err
	})
	return took
}

// noStorm checks that no frame was ever heard more often than a frame in flight
// can be when the tree changes under it; in a loop it goes round for ever.
func (l *treeLab) noStorm() {
	l.t.Helper()
	sent, heard, twice, most := l.chatter.totals()
	if most > 2 || twice*100 > sent {
		l.t.Errorf("%s: of %d broadcasts heard %d times, %d were heard more than once by a station, up to %d times", l.name, sent, heard, twice, most)
	}
}

// stop stops every kvswitch that lives, as it would be when the test ends.
func (l *treeLab) stop() {
	l.t.Helper()
	for _, b := range l.bridges {
		if k, ok := b.treeMember.(kvsMember); ok && !b.dead {
			k.stop()
			b.dead = true
		}
	}
}
