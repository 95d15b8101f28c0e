package measure

import (
	"runtime"
	"slices"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
)

var (
	metricPorts = report.Metric{
		Test: "scale", Name: "ports", Unit: "frame/s",
		Title: "receive rate of all ports, each sending to the next at full load, by number of ports",
	}
	metricAddresses = report.Metric{
		Test: "scale", Name: "addresses", Unit: "frame/s",
		Title: "receive rate at full load, by number of addresses in use",
	}
	metricWorkers = report.Metric{
		Test: "scale", Name: "workers", Unit: "frame/s",
		Title: "receive rate of four fully meshed ports at full load, by number of kvswitch's workers",
	}
)

// scale is how the receive rate changes with the number of ports, of addresses and
// of workers.
func scale(s *trial.Session) (stages []Stage) {
	ports, stations := []int{2, 8, 32, 256}, []int{1, 1000, 100_000, 500_000}
	if s.Quick {
		ports, stations = ports[:2], stations[:2]
	}
	kinds := switches(s)
	for _, n := range ports {
		stages = append(stages, Stage{kinds, topo.Spec{Ports: n}, []Measurement{
			delivered{metricPorts, report.Case{Ports: n}, probe.Ring(n)},
		}})
	}
	var crowds []Measurement
	for _, n := range stations {
		crowds = append(crowds, delivered{metricAddresses, report.Case{Addresses: 2 * n}, []probe.Flows{probe.OneWay(n)}})
	}
	stages = append(stages, Stage{kinds, topo.Spec{Ports: 2}, crowds})
	return append(stages, workers(s)...)
}

// workers are kvswitch with one worker, two, and so on; none if kvswitch is
// absent, which the report says elsewhere.
func workers(s *trial.Session) (stages []Stage) {
	for n := 1; n <= runtime.NumCPU(); n++ {
		k := subject.WithWorkers(n)
		if !slices.ContainsFunc(s.Entrants, func(e subject.Kind) bool { return e.Name == k.Name }) {
			return nil
		}
		stages = append(stages, Stage{[]subject.Kind{k}, topo.Spec{Ports: meshedPorts}, []Measurement{
			delivered{metricWorkers, report.Case{Ports: meshedPorts, Workers: n}, probe.Mesh(meshedPorts)},
		}})
	}
	return stages
}
