package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// interopPlans are kvswitch, the kernel's bridge and Open vSwitch in a triangle,
// and with a second kvswitch in a square, with each of them as root and with
// kvswitch in either mode.
func interopPlans() (plans []interopPlan) {
	for _, mode := range []string{"rstp", "stp"} {
		for _, ranking := range []string{
			"kvs ovs kernel", "kernel ovs kvs", "ovs kernel kvs", // triangles
			"kvs kernel ovs kvs2", "kernel kvs2 ovs kvs", // squares
		} {
			plans = append(plans, newInteropPlan(mode, strings.Fields(ranking)))
		}
	}
	return plans
}

// interopPlan is a plan, the bridge that will be root, and a cable that will be
// part of the tree, to be cut. It heals without a wait if whoever has to open a
// port, and whoever has to agree, speaks RSTP.
type interopPlan struct {
	treePlan
	root, cut string
	rapid     bool
}

// newInteropPlan ranks bridges by priority, best first. The cable that is cut is
// the one between kvswitch and the root or, if that is kvswitch, between it and
// the last of its neighbours.
func newInteropPlan(mode string, ranking []string) interopPlan {
	p := interopPlan{root: ranking[0], rapid: mode == "rstp" && ranking[len(ranking)-1] != "kernel"}
	p.pause = 20 * time.Millisecond
	p.cables = []string{"kernel-kvs", "ovs-kvs", "kernel-ovs"}
	shape := "triangle"
	if slices.Contains(ranking, "kvs2") {
		shape, p.cables = "square", []string{"kernel-kvs", "ovs-kvs", "kernel-kvs2", "ovs-kvs2"}
	}
	p.name = strings.Join([]string{shape, mode, strings.Join(ranking, ">")}, " ")
	neighbour := p.root
	if p.root == "kvs" {
		neighbour = "ovs"
		if slices.Index(ranking, "kernel") > slices.Index(ranking, "ovs") {
			neighbour = "kernel"
		}
	}
	p.cut = neighbour + "-kvs"
	makers := map[string]treeMaker{"kvs": kvswitchTree(mode), "kvs2": kvswitchTree(mode), "kernel": kernelTree, "ovs": ovsTree}
	for i, name := range ranking {
		p.bridges = append(p.bridges, treeBridge{name: name, priority: (i + 1) << 12, maker: makers[name]})
	}
	return p
}

// The networks go through each step side by side: nearly all of it is waiting
// for the forward delay of bridges that have no quicker way.
func TestTreeWithKernelBridgeAndOpenVSwitch(t *testing.T) {
	t.Parallel()
	inKernelModes(t, testTreeWithKernelBridgeAndOpenVSwitch)
}

func testTreeWithKernelBridgeAndOpenVSwitch(t *testing.T) {
	t.Parallel()
	var labs []*treeLab
	plans := interopPlans()
	for _, p := range plans {
		labs = append(labs, newTreeLab(t, p.treePlan))
	}
	each := func(step func(p interopPlan, l *treeLab)) {
		t.Helper()
		for i, l := range labs {
			step(plans[i], l)
		}
	}
	each(func(p interopPlan, l *treeLab) {
		l.converges(p.root)
		l.heals(l.now())
	})
	cuts := map[*treeLab]moment{}
	each(func(p interopPlan, l *treeLab) { cuts[l] = l.cut(p.cut) })
	each(func(p interopPlan, l *treeLab) {
		took := l.heals(cuts[l])
		blocked := l.converges(p.root, p.cut)
		if len(blocked) > 0 {
			t.Errorf("%s blocks %v when %s is cut", p.name, blocked, p.cut)
		}
		t.Logf("%-38s %-10s cut: traffic between all in %v", p.name, p.cut, took.Round(time.Millisecond))
		// A port that waits for the forward delay does so twice, each time for that
		// many ticks.
		if slow := 2 * (shortForwardDelay - 1) * time.Second; p.rapid && took >= slow {
			t.Errorf("%s: %s cut: traffic between all in %v: it waited for the forward delay", p.name, p.cut, took)
		}
	})
	each(func(p interopPlan, l *treeLab) { l.join(p.cut) })
	each(func(p interopPlan, l *treeLab) {
		l.converges(p.root)
		l.heals(l.now())
		l.noStorm()
	})
	// Before any of the namespaces goes: that occupies the kernel for seconds.
	each(func(_ interopPlan, l *treeLab) { l.stop() })
}
