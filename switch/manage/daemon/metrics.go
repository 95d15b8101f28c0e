package daemon

import (
	"fmt"
	"html"
	"net"
	"net/http"
	"time"

	"github.com/kvswitch/kvswitch/stp"
	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// collector turns a switch's status into Prometheus metrics when it is asked:
// nothing is counted twice, and nothing costs anything in between.
type collector struct {
	sw      *vswitch.Switch
	version string // of the program
}

// Label sets of the metrics.
var (
	switchLabels = []string{"switch"}
	portLabels   = []string{"switch", "port"}
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("kvswitch_"+name, help, labels, nil)
}

var (
	descInfo     = desc("info", "The switch; always 1.", "switch", "version", "bridge_id", "stp_mode")
	descUptime   = desc("uptime_seconds", "Time since the switch was made.", switchLabels...)
	descWorkers  = desc("workers", "Forwarding threads.", switchLabels...)
	descEntries  = desc("fdb_entries", "Stations that the forwarding table has learned.", switchLabels...)
	descFixed    = desc("fdb_fixed_entries", "Static and local entries of the forwarding table.", switchLabels...)
	descMax      = desc("fdb_max_entries", "Most stations that the forwarding table learns.", switchLabels...)
	descRoot     = desc("stp_is_root", "1 if the switch is the root of the spanning tree.", switchLabels...)
	descRootCost = desc("stp_root_path_cost", "Cost of the path to the root.", switchLabels...)
	descChanges  = desc("stp_topology_changes_total", "Topology changes.", switchLabels...)

	descLink    = desc("port_up", "1 if the port's link is up.", portLabels...)
	descState   = desc("port_stp_state", "1 for the state that the port has in the spanning tree, 0 for the others.", "switch", "port", "state")
	descRole    = desc("port_stp_role", "1 for the role that the port has in the spanning tree, 0 for the others.", "switch", "port", "role")
	descHeld    = desc("port_guard_holds", "1 for the guard that keeps the port from forwarding, 0 for the others.", "switch", "port", "guard")
	descMTU     = desc("port_mtu_bytes", "Largest payload that the port can send.", portLabels...)
	descSpeed   = desc("port_speed_bytes_per_second", "Speed of the link in bytes a second; 0 = unknown.", portLabels...)
	descLearned = desc("port_fdb_learned_entries", "Stations learned on the port.", portLabels...)
	descFrames  = desc("port_frames_total", "Frames that came in (rx) and left (tx).", "switch", "port", "direction")
	descBytes   = desc("port_bytes_total", "Bytes without frame check sequence that came in (rx) and left (tx).", "switch", "port", "direction")
	descKernel  = desc("port_in_kernel_frames_total", "Of these, frames that never left the kernel.", "switch", "port", "direction")
	descDrops   = desc("port_drops_total", "Frames dropped, by reason.", "switch", "port", "reason")
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descInfo, descUptime, descWorkers, descEntries, descFixed, descMax, descRoot, descRootCost, descChanges,
		descLink, descState, descRole, descHeld, descMTU, descSpeed, descLearned, descFrames, descBytes, descKernel, descDrops} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st := c.sw.Status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{st.Name}, labels...)...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{st.Name}, labels...)...)
	}
	oneOf := func(d *prometheus.Desc, all []string, is, port string) {
		for _, v := range all {
			gauge(d, oneIf(v == is), port, v)
		}
	}
	gauge(descInfo, 1, c.version, st.BridgeID, st.STP.Mode)
	gauge(descUptime, st.UptimeS)
	gauge(descWorkers, float64(st.Workers))
	gauge(descEntries, float64(st.FDB.Entries))
	gauge(descFixed, float64(st.FDB.Fixed))
	gauge(descMax, float64(st.FDB.Max))
	gauge(descRoot, oneIf(st.STP.RootID == st.BridgeID))
	gauge(descRootCost, float64(st.STP.RootPathCost))
	counter(descChanges, st.STP.TopologyChanges)
	ports := st.Ports
	if st.HostPort != nil {
		ports = append(ports, *st.HostPort)
	}
	for _, p := range ports {
		gauge(descLink, oneIf(p.Link == "up"), p.Name)
		oneOf(descState, states, p.STP.State, p.Name)
		oneOf(descRole, roles, p.STP.Role, p.Name)
		oneOf(descHeld, guards, p.STP.Held, p.Name)
		gauge(descMTU, float64(p.MTU), p.Name)
		gauge(descSpeed, float64(p.SpeedBps)/8, p.Name)
		gauge(descLearned, float64(p.Learned), p.Name)
		for direction, t := range map[string]vswitch.Traffic{"rx": p.RX, "tx": p.TX} {
			counter(descFrames, t.Frames, p.Name, direction)
			counter(descBytes, t.Bytes, p.Name, direction)
		}
		counter(descKernel, p.InKernel.RxFrames, p.Name, "rx")
		counter(descKernel, p.InKernel.TxFrames, p.Name, "tx")
		for _, reason := range dropReasons {
			counter(descDrops, p.Drops[reason], p.Name, reason)
		}
	}
}

// What one of a port's series has the value 1 for. A rate or an alert needs the
// others, too, from the start.
var (
	states = texts(stp.StateDisabled, stp.StateDiscarding, stp.StateLearning, stp.StateForwarding, stp.StateListening, stp.StateBlocking)
	roles  = texts(stp.RoleDisabled, stp.RoleRoot, stp.RoleDesignated, stp.RoleAlternate, stp.RoleBackup)
	guards = texts(stp.GuardBPDU, stp.GuardRoot, stp.GuardLoop, stp.GuardSelfLoop)

	dropReasons = vswitch.DropReasons()
)

func texts[T fmt.Stringer](values ...T) (list []string) {
	for _, v := range values {
		list = append(list, v.String())
	}
	return list
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// maxScrapers is how many connections the metrics may have: they come from the
// network, and each is a descriptor and memory that ports may need.
const maxScrapers = 32

// metricsServer serves GET /metrics.
type metricsServer struct {
	ln   net.Listener
	http http.Server
}

// listenMetrics opens the address, so that one in use is an error at the start.
func listenMetrics(addr string, sw *vswitch.Switch, version string) (*metricsServer, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w: choose another --metrics", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{sw, version}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!DOCTYPE html><title>kvswitch %[1]s</title><p>kvswitch %[1]s: <a href=\"/metrics\">metrics</a></p>\n", html.EscapeString(sw.Config().Name))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	return &metricsServer{ln: ln, http: http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute, // longer than the usual scrape interval
		MaxHeaderBytes:    16 << 10,
	}}, nil
}

// serve answers until Close.
func (m *metricsServer) serve() error {
	ln := ctl.Limit(m.ln, maxScrapers, "text/plain", "too many connections: try again")
	if err := m.http.Serve(ln); err != http.ErrServerClosed {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

func (m *metricsServer) Close() error { return m.http.Close() }
