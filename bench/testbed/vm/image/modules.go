package image

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// bootModules are loaded before the agent starts: the bus, the agent's port and
// the network device.
var bootModules = []string{"virtio_pci", "virtio_console", "virtio_net"}

// spareModules can be loaded in the guest by modprobe, or by the kernel itself
// when someone asks for what they do: for guests that bridge, tag, or are hosts
// with a switch of their own.
var spareModules = []string{
	"8021q", "bridge", "veth", "dummy", "tun", "tap", "macvtap", "macvlan", "vhost_net",
	"sch_ingress", "cls_bpf", "act_bpf", "af_packet_diag", "virtio-rng", "virtio_balloon", "uio_pci_generic",
}

// modules is what a kernel package has, by module name.
type modules struct {
	path  map[string]string
	facts map[string]modinfo
}

// findModules indexes the uncompressed modules below root.
func findModules(root string) (modules, error) {
	m := modules{path: map[string]string{}, facts: map[string]modinfo{}}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(p), ".ko"); ok && err == nil {
			m.path[canonical(name)] = p
		}
		return err
	})
	return m, err
}

// canonical is a module's name as the kernel writes it.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// order returns names and all they need, each after what it needs.
func (m modules) order(names ...string) ([]string, error) {
	var sorted []string
	placed := map[string]bool{}
	var place func(name string) error
	place = func(name string) error {
		name = canonical(name)
		if placed[name] {
			return nil
		}
		placed[name] = true
		facts, err := m.read(name)
		if err != nil {
			return err
		}
		for _, n := range facts.depends {
			if err := place(n); err != nil {
				return err
			}
		}
		sorted = append(sorted, name)
		return nil
	}
	for _, n := range names {
		if err := place(n); err != nil {
			return nil, err
		}
	}
	return sorted, nil
}

// modinfo is what a module says of itself. The index that modprobe uses is made
// from it at installation, which never happens here.
type modinfo struct {
	depends []string // modules it needs directly
	aliases []string // patterns of what it is asked for by
}

func (m modules) read(name string) (modinfo, error) {
	if facts, known := m.facts[name]; known {
		return facts, nil
	}
	p, ok := m.path[name]
	if !ok {
		return modinfo{}, fmt.Errorf("the kernel package has no module %s", name)
	}
	f, err := elf.Open(p)
	if err != nil {
		return modinfo{}, fmt.Errorf("open module %s: %w", p, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return modinfo{}, fmt.Errorf("read module %s: no .modinfo", p)
	}
	data, err := section.Data()
	if err != nil {
		return modinfo{}, fmt.Errorf("read module %s: %w", p, err)
	}
	m.facts[name] = parseModinfo(data)
	return m.facts[name], nil
}

// parseModinfo reads NUL-separated facts such as "depends=a,b" and "alias=x".
func parseModinfo(data []byte) (info modinfo) {
	for fact := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(fact), "=")
		switch {
		case key == "depends" && value != "":
			info.depends = strings.Split(canonical(value), ",")
		case key == "alias":
			info.aliases = append(info.aliases, value)
		}
	}
	return info
}
