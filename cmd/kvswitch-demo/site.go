package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm"
)

// site is one of the two hosts: a network namespace with its own control
// sockets and the program installed in a directory of its own.
type site struct {
	tb   netns.TB
	out  io.Writer
	name string // as the prompt shows it
	host *netns.Host
	dir  string
}

// newSite installs the program on a host as make install does: with the links
// by which QEMU calls it.
func newSite(tb netns.TB, out io.Writer, name string, host *netns.Host, program string) *site {
	s := &site{tb: tb, out: out, name: name, host: host, dir: netns.Dir(tb)}
	for _, link := range []string{"kvswitch", "kvswitch-ifup", "kvswitch-ifdown"} {
		if err := os.Symlink(program, filepath.Join(s.dir, link)); err != nil {
			tb.Fatalf("install: %v", err)
		}
	}
	return s
}

// environment is what the program finds on this host.
func (s *site) environment() []string {
	return append(os.Environ(), "KVSWITCH_RUN_DIR="+s.dir, "PATH="+s.dir+":"+os.Getenv("PATH"))
}

// say prints a command as it would be typed on this host.
func (s *site) say(command string) { fmt.Fprintf(s.out, "%s# %s\n", s.name, command) }

// run prints a command, runs it on the host, and prints what it said.
func (s *site) run(command string) string {
	s.say(command)
	argv := strings.Fields(command)
	cmd := exec.Command(s.find(argv[0]), argv[1:]...)
	cmd.Env = s.environment()
	p := s.host.Start(cmd)
	select {
	case <-p.Done():
	case <-s.tb.Context().Done():
		s.tb.Fatalf("interrupted")
	}
	out := p.Log()
	fmt.Fprint(s.out, indent(out))
	if err := p.Err(); err != nil {
		s.tb.Fatalf("%s: %v", command, err)
	}
	return out
}

// start prints a command and leaves it running on the host.
func (s *site) start(command string) *netns.Proc {
	s.say(command + " &")
	argv := strings.Fields(command)
	cmd := exec.Command(s.find(argv[0]), argv[1:]...)
	cmd.Env = s.environment()
	return s.host.Start(cmd)
}

// find prefers what is installed on this host.
func (s *site) find(program string) string {
	if own := filepath.Join(s.dir, program); exists(own) {
		return own
	}
	return program
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// await waits until a kvswitch verb on this host prints want.
func (s *site) await(what, want string, args ...string) {
	netns.Await(s.tb, 20*time.Second, what, func() error {
		out, err := s.ask(args...)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("nothing about %q in:\n%s", want, out)
		}
		return err
	})
}

// awaitGone waits until the switch has no port of that name.
func (s *site) awaitGone(port string) {
	netns.Await(s.tb, 20*time.Second, port+" is gone", func() error {
		if _, err := s.ask("port", "show", port); err == nil {
			return fmt.Errorf("it is still there")
		}
		return nil
	})
}

// ask runs a kvswitch verb on this host without showing it.
func (s *site) ask(args ...string) (string, error) {
	cmd := exec.CommandContext(s.tb.Context(), s.find("kvswitch"), args...)
	cmd.Env = s.environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return string(out), nil
}

// shortWay says how many of the frames that came in by the switch's ports never left
// the kernel.
func (s *site) shortWay() string {
	var doc struct {
		Ports []struct {
			Name     string `json:"name"`
			InKernel struct {
				Active   bool   `json:"active"`
				Why      string `json:"why"`
				RxFrames uint64 `json:"rx_frames"`
			} `json:"in_kernel"`
			RX struct {
				Frames uint64 `json:"frames"`
			} `json:"rx"`
		} `json:"ports"`
	}
	out, err := s.ask("show", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &doc)
	}
	if err != nil {
		s.tb.Fatalf("ask the switch on %s: %v", s.name, err)
	}
	var frames, short uint64
	why := ""
	for _, p := range doc.Ports {
		frames += p.RX.Frames
		short += p.InKernel.RxFrames
		if !p.InKernel.Active {
			why += fmt.Sprintf("; not those of %s: %s", p.Name, p.InKernel.Why)
		}
	}
	return fmt.Sprintf("%s: of %d frames that came in by ports %d never left the kernel%s", s.name, frames, short, why)
}

// guest prints how a virtual machine is started here, and starts it.
func (s *site) guest(name, netdev, mac string) *vm.Guest {
	device := "virtio-net-pci,netdev=n0,mac=" + mac
	s.say(fmt.Sprintf("%s … -netdev %s -device %s &", vm.Program, netdev, device))
	return vm.Launch(s.tb, vm.Options{
		Name: name,
		Host: s.host,
		Net:  []string{"-netdev", netdev, "-device", device},
		Env:  s.environment(),
	})
}

// inGuest prints a command as typed in a guest, and runs it there.
func inGuest(out io.Writer, name string, g *vm.Guest, command string) string {
	fmt.Fprintf(out, "%s# %s\n", name, command)
	said := g.Run(command)
	if said != "" {
		fmt.Fprint(out, indent(said))
	}
	return said
}

func indent(text string) string {
	if text = strings.TrimRight(text, "\n"); text == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}
