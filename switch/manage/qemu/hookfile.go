package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// HooksDir is where libvirt looks for hooks.
const HooksDir = "/etc/libvirt/hooks"

// hookMark is the line by which we know our own hook.
const hookMark = "# Written by `kvswitch libvirt hooks install`; `kvswitch libvirt hooks uninstall` removes it."

// hookPath is a file of our own beside the user's: libvirt runs hooks/qemu and
// then everything in hooks/qemu.d (since 6.5.0).
func hookPath(dir string) string { return filepath.Join(dir, "qemu.d", "kvswitch") }

// HookCommand is what libvirt is to run. libvirt hands its hooks no environment,
// so all of it stands in the hook's file.
type HookCommand struct {
	Program string // absolute path of kvswitch
	RunDir  string // absolute path of the control sockets' directory
	Switch  string // of domains that name none; "" = the only one that runs
}

// text is the hook's file.
func (c *HookCommand) text() ([]byte, error) {
	for _, p := range []string{c.Program, c.RunDir} {
		if !filepath.IsAbs(p) || strings.ContainsAny(p, "'\n") {
			return nil, fmt.Errorf("%q: want an absolute path without quotes", p)
		}
	}
	words := fmt.Sprintf("'%s' --run-dir '%s' libvirt hook", c.Program, c.RunDir)
	if c.Switch != "" {
		if err := config.CheckName(c.Switch); err != nil {
			return nil, err
		}
		if strings.ContainsAny(c.Switch, "'\n") {
			return nil, fmt.Errorf("switch %q: want a name without quotes", c.Switch)
		}
		words += fmt.Sprintf(" --switch '%s'", c.Switch)
	}
	return fmt.Appendf(nil, "#!/bin/sh\n%s\nexec %s -- \"$@\"\n", hookMark, words), nil
}

// InstallHook makes libvirt run c for its guests. It reports whether anything
// changed: libvirt's daemon notices a first hook only when it is restarted.
func InstallHook(dir string, c HookCommand) (path string, changed bool, err error) {
	path = hookPath(dir)
	text, err := c.text()
	if err != nil {
		return path, false, fmt.Errorf("install hook: %w", err)
	}
	old, err := ownHook(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return path, false, fmt.Errorf("install hook: %w", err)
	}
	if err == nil && bytes.Equal(old, text) {
		return path, false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return path, false, fmt.Errorf("install hook: %w", err)
	}
	// By a rename, so that libvirt never runs half a script.
	f, err := os.CreateTemp(filepath.Dir(dir), ".kvswitch-hook-*")
	if err != nil {
		return path, false, fmt.Errorf("install hook: %w", err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o755), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return path, false, fmt.Errorf("install hook: %w", err)
	}
	return path, true, nil
}

// UninstallHook removes the hook. One that is not there is no error.
func UninstallHook(dir string) (path string, changed bool, err error) {
	path = hookPath(dir)
	_, err = ownHook(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, false, nil
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return path, false, fmt.Errorf("uninstall hook: %w", err)
	}
	return path, true, nil
}

// ownHook reads the hook and refuses one that somebody else wrote.
func ownHook(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err == nil && !bytes.Contains(text, []byte(hookMark)) {
		err = fmt.Errorf("%s is not kvswitch's: remove it or move it away", path)
	}
	return text, err
}
