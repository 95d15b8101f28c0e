package netdev

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// standing puts a device on another and returns its kind. Which kinds a kernel has
// differs.
func standing(t *testing.T, h *netns.Host, on, name string) (kind string) {
	t.Helper()
	var out string
	for _, words := range [][]string{{"macvlan"}, {"macvtap"}, {"vlan", "id", "10"}, {"ipvlan"}, {"vxlan", "id", "5", "dev", on, "dstport", "4789"}} {
		link := []string{"ip", "link", "add", "link", on, "name", name, "type"}
		if words[0] == "vxlan" {
			link = []string{"ip", "link", "add", "name", name, "type"}
		}
		var err error
		if out, err = h.Try(append(link, words...)...); err == nil {
			return words[0]
		}
	}
	netns.Need(t, "devices that stand on others (macvlan, vlan)", errors.New(strings.TrimSpace(out)))
	return ""
}

func TestADeviceThatOthersStandOnIsRefusedUnlessTheyMayGoDeaf(t *testing.T) {
	sw, far := cable(t)
	kind := standing(t, sw, "port", "mgmt0")
	sw.Addr("mgmt0", "192.0.2.7/24")
	_, err := tryOpen(sw, "port", Options{})
	if err == nil || !strings.Contains(err.Error(), kind+" mgmt0 on it would hear nothing") || !strings.Contains(err.Error(), "ip link del mgmt0") {
		t.Fatalf("opened with %s on it: %v", kind, err)
	}
	p := openOn(t, sw, "port", Options{CutOff: true})
	awaitState(t, p, "up", up)
	roundTrip(t, p, far.Station("eth0"), 1)
	if w := strings.Join(p.Warnings(), "\n"); !strings.Contains(w, kind+" mgmt0 on it hears nothing") {
		t.Errorf("warnings %q", w)
	}
	// Nor is it a port itself, below which another has the frames.
	if _, err := tryOpen(sw, "mgmt0", Options{}); err == nil || !strings.Contains(err.Error(), "it stands on port, which is a port of a switch") {
		t.Errorf("a device on a port is a port: %v", err)
	}
	sw.Delete("mgmt0")
	netns.Await(t, 10*time.Second, "the warning goes with the device", func() error {
		if w := p.Warnings(); len(w) != 0 {
			return errors.New(strings.Join(w, "\n"))
		}
		return nil
	})
}

func TestWhatComesToStandOnAPortIsWarnedOf(t *testing.T) {
	sw, _ := cable(t)
	p := openOn(t, sw, "port", Options{})
	kind := standing(t, sw, "port", "mgmt0")
	netns.Await(t, 10*time.Second, "a warning", func() error {
		if w := strings.Join(p.Warnings(), "\n"); !strings.Contains(w, kind+" mgmt0") {
			return errors.New(w)
		}
		return nil
	})
}

// The two ends of a veth in one namespace name each other as a VLAN names its NIC.
func TestBothEndsOfAVethCanBePorts(t *testing.T) {
	sw, _ := cable(t)
	sw.Run("ip", "link", "add", "one", "type", "veth", "peer", "name", "two")
	openOn(t, sw, "one", Options{})
	openOn(t, sw, "two", Options{})
}

func TestAnIPv6AddressLeftOnTheDeviceIsWarnedOfToo(t *testing.T) {
	sw, _ := cable(t)
	sw.Sysctl("net/ipv6/conf/port/disable_ipv6", "0")
	sw.Run("ip", "addr", "add", "fd00::7/64", "dev", "port", "nodad")
	w := strings.Join(openOn(t, sw, "port", Options{}).Warnings(), "\n")
	if !strings.Contains(w, "can't be reached at fd00::7/64") || strings.Contains(w, "fe80") {
		t.Errorf("warnings %q", w)
	}
}
