package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/stp"
	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// The files brctl-*.txt are what brctl 1.7 prints of a kernel bridge. Given the
// same facts, every byte is the same.

func golden(t *testing.T, name, got string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n got\n%q\nwant\n%q", name, got, want)
	}
}

func mac(t *testing.T, text string) frame.MAC {
	t.Helper()
	m, err := frame.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestShowIsBrctls(t *testing.T) {
	var out bytes.Buffer
	printShow(&out, []vswitch.Status{{Name: "br0", BridgeID: "1000.0200000000b0", STP: vswitch.STPSummary{Mode: "rstp"},
		Ports: []vswitch.PortStatus{{Name: "verylongname01"}, {Name: "ve0"}}}})
	golden(t, "brctl-show.txt", out.String())
	out.Reset()
	printShow(&out, []vswitch.Status{{Name: "br1", BridgeID: "8000.0200000000b1", STP: vswitch.STPSummary{Mode: "off"}}})
	golden(t, "brctl-show-empty.txt", out.String())
}

func TestShowmacsIsBrctls(t *testing.T) {
	st := &vswitch.Status{Ports: []vswitch.PortStatus{{Name: "ve0", ID: 1}, {Name: "verylongname01", ID: 2}}}
	var out bytes.Buffer
	printMACs(&out, st, []vswitch.FDBEntry{
		{MAC: mac(t, "02:00:00:00:00:77"), Port: "ve0", Type: "static"},
		{MAC: mac(t, "02:00:00:00:00:02"), Port: "verylongname01", Type: "local"},
		{MAC: mac(t, "02:00:00:00:00:01"), Port: "ve0", Type: "local"},
	})
	golden(t, "brctl-showmacs.txt", out.String())
}

func TestShowstpIsBrctls(t *testing.T) {
	own := stp.BridgeID{Priority: 0x1000, Addr: mac(t, "02:00:00:00:00:b0")}
	before := stp.BridgeID{Priority: 0x8000, Addr: own.Addr}
	port := func(n uint16, name string, cost uint32) vswitch.STPPortStatus {
		id := stp.MakePortID(128, n)
		return vswitch.STPPortStatus{Name: name, PortStatus: stp.PortStatus{Port: n, ID: id, State: stp.StateDisabled, Cost: cost,
			DesignatedRoot: before, DesignatedBridge: before, DesignatedPort: id}}
	}
	tree := vswitch.STPStatus{
		Status: stp.Status{BridgeID: own, RootID: own, MaxAge: 20, Hello: 2, ForwardDelay: 15,
			BridgeMaxAge: 20, BridgeHello: 2, BridgeForwardDelay: 15},
		AgeingS: 60,
		Ports:   []vswitch.STPPortStatus{port(2, "verylongname01", 20000), port(1, "ve0", 2000)},
	}
	var out bytes.Buffer
	printSTP(&out, "br0", &tree)
	golden(t, "brctl-showstp.txt", out.String())
}

func TestEventLines(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)
	m := mac(t, "52:54:00:00:00:01")
	for _, tc := range []struct {
		e    vswitch.Event
		want string
	}{
		{vswitch.Event{Time: at, Event: "fdb.move", Port: "vm2", From: "vm1", MAC: &m, VLAN: 10}, "03:04:05.000678 fdb.move port=vm2 mac=52:54:00:00:00:01 vlan=10 from=vm1"},
		{vswitch.Event{Time: at, Event: "port.down", Port: "a", Reason: "no carrier"}, `03:04:05.000678 port.down port=a reason="no carrier"`},
		{vswitch.Event{Time: at, Event: "monitor.lost", Count: 7}, "03:04:05.000678 monitor.lost count=7"},
	} {
		if got := eventLine(tc.e); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

func TestRatesAreShort(t *testing.T) {
	for bps, want := range map[uint64]string{0: "-", 999: "999", 10_000: "10k", 100_000_000: "100M", 2_500_000_000: "2.5G", 10_000_000_000: "10G"} {
		if got := rate(bps); got != want {
			t.Errorf("rate(%d) = %s, want %s", bps, got, want)
		}
	}
}

func TestDetailIsFlattened(t *testing.T) {
	got := detail("", map[string]any{
		"rings":    []any{map[string]any{"kicks": 3.0}, map[string]any{"kicks": 1e15}},
		"features": []any{"CSUM", "MRG_RXBUF"},
		"empty":    []any{},
		"on":       true,
	})
	want := [][2]string{{"empty", "-"}, {"features", "CSUM MRG_RXBUF"}, {"on", "true"}, {"rings.0.kicks", "3"}, {"rings.1.kicks", "1000000000000000"}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("row %d: %v, want %v", i, got[i], want[i])
		}
	}
}
