package e2e

import (
	"slices"
)

// The document of kvswitch stp show --json, as far as tests look at it, spelt
// out so that a renamed field fails a test.
type (
	treeDoc struct {
		Mode            string        `json:"mode"`
		BridgeID        string        `json:"bridge_id"`
		RootID          string        `json:"root_id"`
		RootPort        string        `json:"root_port_name"`
		RootPathCost    uint32        `json:"root_path_cost"`
		MaxAge          int           `json:"max_age"`
		Hello           int           `json:"hello"`
		ForwardDelay    int           `json:"forward_delay"`
		TopologyChanges int           `json:"topology_changes"`
		TopologyChange  bool          `json:"topology_change"`
		LastChangePort  string        `json:"last_topology_change_port_name"`
		Ports           []treePortDoc `json:"ports"`
	}
	treePortDoc struct {
		Name        string `json:"name"`
		ID          string `json:"port_id"`
		Enabled     bool   `json:"enabled"`
		Role        string `json:"role"`
		State       string `json:"state"`
		Cost        uint32 `json:"cost"`
		Edge        bool   `json:"edge"`
		Neighbour   string `json:"neighbour"`
		Sends       string `json:"sends"`
		Guard       string `json:"guard"`
		GuardReason string `json:"guard_reason"`
		GuardBridge string `json:"guard_bridge"`
		RecoverIn   int    `json:"recover_in"`
		Counters    struct {
			RxConfig        int `json:"rx_config"`
			RxTCN           int `json:"rx_tcn"`
			RxRST           int `json:"rx_rst"`
			RxTC            int `json:"rx_tc"`
			RxDiscarded     int `json:"rx_discarded"`
			TxConfig        int `json:"tx_config"`
			TxTCN           int `json:"tx_tcn"`
			TxRST           int `json:"tx_rst"`
			RoleChanges     int `json:"role_changes"`
			TopologyChanges int `json:"topology_changes"`
			Expired         int `json:"expired"`
			GuardTrips      int `json:"guard_trips"`
		} `json:"counters"`
	}
)

// received is how many valid BPDUs the port took in.
func (p *treePortDoc) received() int {
	return p.Counters.RxConfig + p.Counters.RxTCN + p.Counters.RxRST
}

// sent is how many BPDUs the port sent.
func (p *treePortDoc) sent() int {
	return p.Counters.TxConfig + p.Counters.TxTCN + p.Counters.TxRST
}

// tree is kvswitch stp show --json.
func (k *kvs) tree() (d treeDoc) {
	k.t.Helper()
	k.decode(&d, "stp", "show", "--json")
	return d
}

// treePort is one port of it.
func (k *kvs) treePort(name string) treePortDoc {
	k.t.Helper()
	d := k.tree()
	i := slices.IndexFunc(d.Ports, func(p treePortDoc) bool { return p.Name == name })
	if i < 0 {
		k.t.Fatalf("no port %s in %+v", name, d)
	}
	return d.Ports[i]
}
