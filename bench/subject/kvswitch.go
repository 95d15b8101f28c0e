package subject

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/kvswitch/kvswitch/bench/topo"
)

// kvswitchKinds are this project's switch, each with its own settings. All have
// everything on that it has on by default, spanning tree included; ports are
// edge ports so that they forward at once.
func kvswitchKinds() []Kind {
	return []Kind{
		kvswitchKind("kvswitch", "kvswitch run, AF_PACKET ports, RSTP on, default busy-poll budget"),
		kvswitchKind("kvswitch-spin", "the same with --busy-poll always", "--busy-poll", "always"),
		kvswitchKind("kvswitch-sleep", "the same with --busy-poll 0", "--busy-poll", "0"),
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

// kvswitchBinary is the program under test: $KVSWITCH_BIN, or this very program
// if it is kvswitch.
func kvswitchBinary() (string, error) {
	if bin := os.Getenv("KVSWITCH_BIN"); bin != "" {
		if _, err := os.Stat(bin); err != nil {
			return "", fmt.Errorf("find KVSWITCH_BIN: %w", err)
		}
		return filepath.Abs(bin)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	if filepath.Base(self) != "kvswitch" {
		return "", fmt.Errorf("%s is not kvswitch; set KVSWITCH_BIN", filepath.Base(self))
	}
	return self, nil
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
	args := append([]string{"run", "--name", name, "--run-dir", t.Dir(), "--no-host"}, k.args...)
	for _, p := range t.Ports {
		args = append(args, "--port", "netdev:"+p.Name+",edge=on")
	}
	if err := t.Do(func() { k.start(t, exec.Command(bin, args...)) }); err != nil {
		return err
	}
	return k.appears(filepath.Join(t.Dir(), name+".sock"))
}

func (k *kvswitch) Detach() error { return k.stop() }
