package subject

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kvswitch/kvswitch/bench/topo"
)

// maxEntries is the size of kvswitch's address table here: as large as Open
// vSwitch gets, for the tests with a million addresses.
const maxEntries = 1 << 20

// kvswitchKinds are this project's switch, each with its own settings. All have
// everything on that it has on by default, spanning tree included; ports are
// edge ports so that they forward at once. One of them keeps VLANs apart, too: what
// the project aims at it aims at with everything on.
func kvswitchKinds(path string) []Kind {
	ports := "netdev ports"
	if path == "vhost-user" {
		ports = "vhost-user ports"
	}
	first := kvswitchKind("kvswitch", "kvswitch run, "+ports+", RSTP on, default busy-poll budget")
	const spin = "the same with --busy-poll always"
	if path == "vhost-user" {
		return []Kind{
			first,
			kvswitchKind("kvswitch-spin", spin, "--busy-poll", "always"),
			kvswitchKind("kvswitch-vlan", spin+" --vlan-filtering", "--busy-poll", "always", "--vlan-filtering"),
		}
	}
	return []Kind{
		first,
		kvswitchKind("kvswitch-spin", spin+" --vlan-filtering", "--busy-poll", "always", "--vlan-filtering"),
		kvswitchKind("kvswitch-sleep", "kvswitch run, "+ports+", RSTP on, --busy-poll 0", "--busy-poll", "0"),
	}
}

// guestKinds are kvswitch's two ways to attach a virtual machine.
func guestKinds() []Kind {
	direct := kvswitchKind("kvswitch-vhost", "kvswitch run, vhost-user ports, RSTP on, default busy-poll budget")
	direct.VhostUser = true
	return []Kind{
		kvswitchKind("kvswitch", "kvswitch run, netdev ports on the guests' taps, RSTP on, default busy-poll budget"),
		direct,
	}
}

// WithWorkers is kvswitch with a number of workers.
func WithWorkers(n int) Kind {
	return kvswitchKind("kvswitch", "kvswitch run", "--workers", strconv.Itoa(n))
}

func kvswitchKind(name, about string, args ...string) Kind {
	return Kind{
		Name: name, Family: "kvswitch", About: about,
		Absent: kvswitchAbsent,
		Version: func() string {
			bin, err := kvswitchBinary()
			if err != nil {
				return ""
			}
			return firstLine(bin, "version")
		},
		New: func() Subject { return &kvswitch{name: name, args: args} },
	}
}

// kvswitchBinary is the program under test: $KVSWITCH_BIN, which the verb `kvswitch
// bench` sets to its own program, or else the kvswitch that lies beside this
// program. PATH is not asked: it may lead to one that nobody meant to measure.
func kvswitchBinary() (string, error) {
	if bin := os.Getenv("KVSWITCH_BIN"); bin != "" {
		if _, err := exec.LookPath(bin); err != nil {
			return "", fmt.Errorf("find KVSWITCH_BIN: %w", err)
		}
		return filepath.Abs(bin)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	bin := filepath.Join(filepath.Dir(self), "kvswitch")
	if _, err := exec.LookPath(bin); err != nil {
		return "", fmt.Errorf("no kvswitch beside %s: call it as kvswitch bench, or set KVSWITCH_BIN", self)
	}
	return bin, nil
}

func kvswitchAbsent() error {
	_, err := kvswitchBinary()
	return err
}

type kvswitch struct {
	program
	name string
	args []string
}

func (k *kvswitch) Name() string { return k.name }

func (k *kvswitch) Attach(t *topo.Topology) error {
	bin, err := kvswitchBinary()
	if err != nil {
		return err
	}
	const name = "bench"
	args := append([]string{
		"run", "--name", name, "--run-dir", t.Dir(), "--no-host", "--max-entries", strconv.Itoa(maxEntries),
		"--ageing", Ageing.String(),
	}, k.args...)
	for _, p := range t.Ports {
		// The others have no limit of stations for a port.
		spec := "netdev:" + p.Name + ",edge=on,max-learned=0"
		if p.Socket != "" {
			// Guests that send back whatever they get bridge two ports, and the
			// BPDU guard would be right to shut them.
			spec = "vhost-user:" + p.Name + ",mode=server,path=" + p.Socket + ",edge=on,bpdu-filter=on,max-learned=0"
		}
		args = append(args, "--port", spec)
	}
	if err := t.Do(func() { k.start(t, exec.Command(bin, args...)) }); err != nil {
		return err
	}
	socket := filepath.Join(t.Dir(), name+".sock")
	if err := k.appears(socket); err != nil {
		return err
	}
	return answers(socket)
}

// answers waits until a switch answers on its control socket, which is when it
// is ready: the socket is there before the ports are.
func answers(socket string) error {
	client := http.Client{
		Timeout: settle,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		},
	}
	for deadline := time.Now().Add(settle); ; {
		r, err := client.Get("http://kvswitch/v1/switch")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("answer %s", r.Status)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for kvswitch to be ready: %w", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func (k *kvswitch) Detach() error { return k.stop() }
