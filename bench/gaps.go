package bench

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/subject"
)

// gaps say what these options leave unmeasured, and why, so that nobody looks
// for it in the report.
func (o *Options) gaps() []string {
	var out []string
	add := func(yes bool, format string, args ...any) {
		if yes {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	throughput, latency := o.does("throughput"), o.does("latency")
	// Guests send what they like.
	sized := o.Path != "vm" && (throughput || latency)
	add(o.asked.sizes && !sized, "sizes play no part in %s on path %s", strings.Join(o.Tests, " and "), o.Path)
	add(o.asked.flows && !throughput, "numbers of flows play no part in %s on path %s", strings.Join(o.Tests, " and "), o.Path)
	bare := !slices.ContainsFunc(o.Sizes, probe.Plain)
	add(throughput && bare, "loads without loss, the second generator and costs at equal load are not measured: they take a frame size in bytes")
	add(latency && sized && bare, "one-way latency is not measured: it takes a frame size in bytes")
	add(throughput && o.Path != "veth", "processor time for each frame forwarded is not measured on path %s: it has no plain cable to compare with", o.Path)
	add(throughput && o.Path == "veth" && !bare && !slices.Contains(o.Flows, 1), "costs at equal load are not measured: they take 1 flow")
	if o.asked.against {
		for _, family := range inOrder(o.Against, func(s string) int { return slices.Index(Families, s) }) {
			there := slices.ContainsFunc(o.kinds, func(k subject.Kind) bool { return k.Family == family })
			add(!there, "%s does not race on path %s", family, o.Path)
		}
	}
	return out
}

// something refuses options with which nothing at all would be measured: where
// latency is one-way latency alone.
func (o *Options) something() error {
	if slices.Equal(o.Tests, []string{"latency"}) && o.Path != "veth" && o.Path != "vm" && !slices.ContainsFunc(o.Sizes, probe.Plain) {
		return fmt.Errorf("nothing to measure: latency on path %s takes a frame size in bytes", o.Path)
	}
	return nil
}

func (o *Options) does(test string) bool { return slices.Contains(o.Tests, test) }
