package measure

import (
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
)

var (
	metricReceived = report.Metric{Test: "throughput", Name: "received", Title: "receive rate at full load", Unit: "frame/s"}
	metricMachine  = report.Metric{
		Test: "throughput", Name: "machine_ns", Unit: "ns/frame", Lower: true,
		Title: "processor time of the whole machine for each frame received at full load, generator and sink included",
	}
	metricCost = report.Metric{
		Test: "throughput", Name: "cpu_ns", Unit: "ns/frame", Lower: true,
		Title: "processor time for each frame forwarded: the machine's, less that of the plain cable",
	}
)

// throughput is how much gets through: at full load by size and by number of
// flows, from two kinds of generator; without loss and with little; and what it
// costs.
func throughput(s *trial.Session) []Stage {
	var parts []Measurement
	for _, size := range s.Sizes {
		parts = append(parts, fullLoad{{Size: size, Flows: s.Flows[0], Source: s.Source(), Load: "full"}})
	}
	for _, cases := range byFlows(s) {
		parts = append(parts, cases)
	}
	ends := s.Ends()
	if second, ok := map[string]string{"veth": "xdp", "vhost-user": "dpdk"}[s.Path]; ok {
		for _, size := range ends {
			parts = append(parts, fullLoad{{Size: size, Flows: 1, Source: second, Load: "full"}})
		}
	}
	if len(ends) > 0 {
		parts = append(parts, equalLoad{ends[0]})
	}
	if s.Quick && len(ends) > 0 {
		ends = ends[:1]
	}
	for _, size := range ends {
		parts = append(parts, lossSearch{size: size})
	}
	return []Stage{
		{Parts: []Measurement{memory{}}},
		{s.Entrants, topo.Spec{Ports: 2}, parts},
	}
}

// byFlows are the cases that show how flows count, with the smallest frames. Those
// of one element are measured in the same rounds, and the lowest number once more
// with them, so that nothing else differs; where package guest plays the ends it
// can play one case at a time.
func byFlows(s *trial.Session) (together []fullLoad) {
	var cases fullLoad
	for _, flows := range s.Flows[1:] {
		cases = append(cases, report.Case{Size: s.Sizes[0], Flows: flows, Source: s.Source(), Load: "full"})
	}
	if len(cases) > 0 && s.Path == "veth" {
		first := cases[0]
		first.Flows, first.Load = s.Flows[0], report.LoadBesideFlows
		return []fullLoad{append(fullLoad{first}, cases...)}
	}
	for _, c := range cases {
		together = append(together, fullLoad{c})
	}
	return together
}
