package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
)

// monitor is a QEMU's machine protocol socket, as far as migration needs it.
type monitor struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

func dialMonitor(t *testing.T, path string) *monitor {
	t.Helper()
	m := &monitor{t: t}
	netns.Await(t, startPatience, "the monitor answers", func() (err error) {
		m.conn, err = net.Dial("unix", path)
		return err
	})
	t.Cleanup(func() { m.conn.Close() })
	m.conn.SetDeadline(time.Now().Add(2 * time.Minute))
	m.in = bufio.NewScanner(m.conn)
	m.in.Scan() // the greeting
	m.do("qmp_capabilities", nil)
	return m
}

// do executes a command and returns its answer, passing over events.
func (m *monitor) do(command string, arguments any) json.RawMessage {
	m.t.Helper()
	req := map[string]any{"execute": command}
	if arguments != nil {
		req["arguments"] = arguments
	}
	if err := json.NewEncoder(m.conn).Encode(req); err != nil {
		m.t.Fatal(err)
	}
	for m.in.Scan() {
		var answer struct {
			Return json.RawMessage `json:"return"`
			Error  json.RawMessage `json:"error"`
		}
		if err := json.Unmarshal(m.in.Bytes(), &answer); err != nil {
			m.t.Fatal(err)
		}
		if answer.Error != nil {
			m.t.Fatalf("%s: %s", command, answer.Error)
		}
		if answer.Return != nil {
			return answer.Return
		}
	}
	m.t.Fatalf("%s: no answer: %v", command, m.in.Err())
	return nil
}

// lostPings is how many of count pings have no answer in ping's log, and how many
// in a row.
func lostPings(log string, count int) (lost, gap int) {
	answered := make([]bool, count+1)
	for _, m := range regexp.MustCompile(`icmp_seq=(\d+) ttl=`).FindAllStringSubmatch(log, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil && n <= count {
			answered[n] = true
		}
	}
	row := 0
	for _, ok := range answered[1:] {
		if row++; ok {
			row = 0
			continue
		}
		lost++
		gap = max(gap, row)
	}
	return lost, gap
}

// A guest moves from one host's switch to another's while a third station pings
// it: its memory is copied as it changes, the switch's own writes included (the
// dirty log), and afterwards it is reached at its new place.
func TestVhostUserGuestMigratesLive(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	dir := netns.Dir(t)
	hosts := [2]*netns.Host{lab.Host("a"), lab.Host("b")}
	lab.Cable(hosts[0], "eth0", hosts[1], "eth0")
	var switches [2]*kvs
	var guests [2]*vm.Guest
	var monitors [2]*monitor
	incoming := "unix:" + filepath.Join(dir, "migration")
	for i, h := range hosts {
		h.Up("eth0")
		sock := filepath.Join(dir, fmt.Sprintf("vhost%d", i))
		qmp := filepath.Join(dir, fmt.Sprintf("qmp%d", i))
		switches[i] = run(t, h, "--uplink", "eth0,edge=on", "--port", "vhost-user:vm1,path="+sock)
		h.Addr("kvs0", fmt.Sprintf("192.0.2.%d/24", i+1))
		o := vm.Options{Name: fmt.Sprintf("at-%d", i), Host: h, Memfd: true, QMP: qmp, Net: vhostNet(sock, "52:54:00:00:00:01", 1)}
		if i == 1 {
			o.Args = []string{"-incoming", incoming}
		}
		guests[i] = vm.Launch(t, o)
		monitors[i] = dialMonitor(t, qmp)
	}
	guests[0].AwaitBoot()
	guests[0].Run("ip addr add 192.0.2.9/24 dev eth0; ip link set eth0 up")
	guests[0].Run("ping -c 2 -W 5 192.0.2.1")

	const count = 150
	ping := exec.Command("ping", "-n", "-i", "0.1", "-c", strconv.Itoa(count), "192.0.2.9")
	pinger := hosts[0].Start(ping)
	monitors[0].do("migrate", map[string]string{"uri": incoming})
	netns.Await(t, time.Minute, "the migration is over", func() error {
		var st struct {
			Status string `json:"status"`
			Desc   string `json:"error-desc"`
		}
		if err := json.Unmarshal(monitors[0].do("query-migrate", nil), &st); err != nil {
			return err
		}
		switch st.Status {
		case "completed":
			return nil
		case "failed":
			t.Fatalf("migration failed: %s", st.Desc)
		}
		return errors.New(st.Status)
	})
	// The sender is done before the receiver has started the guest.
	netns.Await(t, 20*time.Second, "the guest runs at its new place", func() error {
		if st := monitors[1].do("query-status", nil); !regexp.MustCompile(`"status": *"running"`).Match(st) {
			return fmt.Errorf("%s", st)
		}
		return nil
	})
	guests[0].Proc().Kill()
	select {
	case <-pinger.Done():
	case <-time.After(time.Minute):
		t.Fatal("ping does not end")
	}
	lost, gap := lostPings(pinger.Log(), count)
	t.Logf("%d of %d pings lost across the move, one was sent every 0.1 s; the longest gap is %d", lost, count, gap)
	// QEMU stops the guest for 0.3 s at most, by its own reckoning, which on a
	// busy machine without KVM is off.
	if gap > 20 || lost > 30 {
		t.Errorf("%d of %d pings were lost, %d in a row\n%s", lost, count, gap, pinger.Log())
	}
	netns.Await(t, startPatience, "the guest is at its new place", func() error {
		if _, err := hosts[0].Try("ping", "-c", "1", "-W", "1", "192.0.2.9"); err != nil {
			return err
		}
		for _, e := range switches[1].table() {
			if e.MAC == "52:54:00:00:00:01" && e.Port == "vm1" {
				return nil
			}
		}
		return errors.New("the second switch does not have it on vm1")
	})
}
