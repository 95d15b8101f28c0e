package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// HookDir is where the hook remembers the guests of the switches in a run
// directory. It goes with a restart of the machine, as they do.
func HookDir(runDir string) string { return filepath.Join(runDir, "libvirt") }

// remembered is what the hook keeps of a guest from its start to its end.
type remembered struct {
	UUID     string     `json:"uuid"`
	Name     string     `json:"name"`
	Incoming bool       `json:"incoming,omitempty"` // it comes from another host and was not started yet
	Ports    []attached `json:"ports"`
}

// attached is a guest's card and the port that it has.
type attached struct {
	MAC    frame.MAC `json:"mac"`
	Switch string    `json:"switch"`
	Tap    string    `json:"tap"`   // and the port's name
	Index  int       `json:"index"` // of the tap: names are used again

	sw HookSwitch // while it is being attached
}

func (r *remembered) has(a attached) bool {
	for _, p := range r.Ports {
		if p.Switch == a.Switch && p.Tap == a.Tap {
			return true
		}
	}
	return false
}

// uuidForm is a UUID as libvirt writes it; it becomes part of a path.
var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func (h *Hook) path(uuid string) string { return filepath.Join(h.Dir, uuid+".json") }

// recall is what is remembered of the guest, nil if nothing is. Without a UUID
// its name has to do, which libvirt keeps unique, too.
func (h *Hook) recall(uuid string) *remembered {
	if uuidForm.MatchString(uuid) {
		return read(h.path(uuid))
	}
	files, _ := filepath.Glob(h.path("*"))
	for _, f := range files {
		if r := read(f); r != nil && r.Name == h.Guest {
			return r
		}
	}
	return nil
}

// read reads a file; one that is none of ours, or broken, says nothing.
func read(path string) *remembered {
	text, err := os.ReadFile(path)
	var r remembered
	if err != nil || json.Unmarshal(text, &r) != nil || r.UUID+".json" != filepath.Base(path) {
		return nil
	}
	return &r
}

// keep remembers a guest, in the place of what was known of it. There is no
// lock: libvirt calls one guest's hooks one after the other, and each guest has
// a file of its own.
func (h *Hook) keep(r *remembered) error {
	if !uuidForm.MatchString(r.UUID) {
		return fmt.Errorf("remember guest %s: %q is no UUID", r.Name, r.UUID)
	}
	text, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(h.Dir, 0o755)
	}
	if err == nil { // by a rename, so that a crash leaves no half of it
		part := h.path(r.UUID) + ".part"
		if err = os.WriteFile(part, append(text, '\n'), 0o644); err == nil {
			err = os.Rename(part, h.path(r.UUID))
		}
	}
	if err != nil {
		return fmt.Errorf("remember guest %s: %w", r.Name, err)
	}
	return nil
}

// drop forgets a guest.
func (h *Hook) drop(r *remembered) error {
	if !uuidForm.MatchString(r.UUID) {
		return nil
	}
	if err := os.Remove(h.path(r.UUID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget guest %s: %w", r.Name, err)
	}
	return nil
}
