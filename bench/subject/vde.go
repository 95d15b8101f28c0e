package subject

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/kvswitch/kvswitch/bench/topo"
)

func vdeKind() Kind {
	return Kind{
		Name: "vde", Family: "vde",
		Bare:    true,
		About:   "vde_switch; the far ends are its own taps, since its port for other devices (vde_pcapplug) holds frames back for seconds",
		Absent:  func() error { return need("vde2", "vde_switch") },
		Version: func() string { return firstLine("vde_switch", "--version") },
		New:     func() Subject { return &vde{} },
	}
}

type vde struct{ program }

func (v *vde) Name() string { return "vde" }

func (v *vde) Attach(t *topo.Topology) error {
	dir := filepath.Join(t.Dir(), "vde")
	// In the foreground vde_switch ends with its standard input, so that must
	// stay open and silent.
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	v.closes = append(v.closes, w.Close)
	defer r.Close()
	settings := filepath.Join(t.Dir(), "vderc")
	if err := os.WriteFile(settings, fmt.Appendf(nil, "hash/setexpire %.0f\n", Ageing.Seconds()), 0o600); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	// Its table has 128 buckets by default.
	args := []string{"-s", dir, "-f", settings, "--hashsize", "131072", "-n", fmt.Sprint(max(32, 2*len(t.Ports)))}
	for _, p := range t.Ports {
		args = append(args, "-t", p.End)
	}
	cmd := exec.Command("vde_switch", args...)
	cmd.Stdin = r
	if err := t.Do(func() { v.start(t, cmd) }); err != nil {
		return err
	}
	if err := v.appears(filepath.Join(dir, "ctl")); err != nil {
		return err
	}
	return t.Adopt()
}

func (v *vde) Detach() error { return v.stop() }
