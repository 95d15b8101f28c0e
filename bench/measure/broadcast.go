package measure

import (
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/report"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/bench/trial"
)

var (
	metricBroadcast = report.Metric{
		Test: "broadcast", Name: "delivered", Unit: "frame/s",
		Title: "copies of broadcast frames delivered to all other ports at full load (RFC 2889, 5.10)",
	}
	metricMeshed = report.Metric{
		Test: "broadcast", Name: "meshed", Unit: "frame/s",
		Title: "receive rate of all ports, each sending to every other at full load (RFC 2889, 5.1)",
	}
)

const (
	broadcastPorts = 8
	meshedPorts    = 4
)

// broadcast are the tests that need more than two ports.
func broadcast(s *trial.Session) []Stage {
	kinds := switches(s)
	stages := []Stage{
		{kinds, topo.Spec{Ports: broadcastPorts}, []Measurement{
			delivered{metricBroadcast, report.Case{Ports: broadcastPorts}, []probe.Flows{flood(broadcastPorts)}},
		}},
		{kinds, topo.Spec{Ports: meshedPorts}, []Measurement{
			delivered{metricMeshed, report.Case{Ports: meshedPorts}, probe.Mesh(meshedPorts)},
		}},
	}
	able := limitable(kinds)
	for _, m := range []blockage{busyPort(), hungPort()} {
		stages = append(stages, Stage{able, m.spec, []Measurement{m}})
	}
	return stages
}

// flood are broadcast frames from the first port to all others.
func flood(ports int) probe.Flows {
	flow := probe.Flows{From: 0, Count: 1, Broadcast: true}
	for p := 1; p < ports; p++ {
		flow.To = append(flow.To, p)
	}
	return flow
}
