package qemu

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHookFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "libvirt", "hooks")
	users := filepath.Join(dir, "qemu")
	os.MkdirAll(dir, 0o755)
	write(t, users, "#!/bin/sh\nexit 0\n", 0o755)

	if _, changed, err := UninstallHook(dir); changed || err != nil {
		t.Errorf("uninstall of nothing: %v, %v", changed, err)
	}
	path, changed, err := InstallHook(dir, HookCommand{Program: "/usr/bin/kvswitch", RunDir: "/run/kvswitch"})
	if err != nil || !changed {
		t.Fatalf("install: %v, %v", changed, err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("hook %v, %v", st, err)
	}
	if _, changed, err := InstallHook(dir, HookCommand{Program: "/usr/bin/kvswitch", RunDir: "/run/kvswitch"}); changed || err != nil {
		t.Errorf("install again: %v, %v", changed, err)
	}
	if _, changed, err := InstallHook(dir, HookCommand{Program: "/opt/kvswitch", RunDir: "/run/b b", Switch: "kvs1"}); !changed || err != nil {
		t.Errorf("install of another program: %v, %v", changed, err)
	}
	text, _ := os.ReadFile(path)
	if want := "\nexec '/opt/kvswitch' --run-dir '/run/b b' libvirt hook --switch 'kvs1' -- \"$@\"\n"; !strings.HasSuffix(string(text), want) {
		t.Errorf("hook:\n%s", text)
	}
	if _, changed, err := UninstallHook(dir); !changed || err != nil {
		t.Errorf("uninstall: %v, %v", changed, err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("hook after uninstall: %v", err)
	}

	write(t, path, "#!/bin/sh\n# mine\n", 0o755)
	for name, f := range map[string]func() error{
		"install": func() error {
			_, _, err := InstallHook(dir, HookCommand{Program: "/usr/bin/kvswitch", RunDir: "/run/kvswitch"})
			return err
		},
		"uninstall": func() error { _, _, err := UninstallHook(dir); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "not kvswitch's") {
			t.Errorf("%s over a foreign file: %v", name, err)
		}
	}
	good := HookCommand{Program: "/usr/bin/kvswitch", RunDir: "/run/kvswitch"}
	for _, wrong := range []string{"kvswitch", "/a'b", "/a\nb", ""} {
		program, runDir, name := good, good, good
		program.Program, runDir.RunDir, name.Switch = wrong, wrong, wrong
		commands := []HookCommand{program, runDir}
		if strings.HasPrefix(wrong, "/") {
			commands = append(commands, name)
		}
		for _, c := range commands {
			if _, _, err := InstallHook(t.TempDir(), c); err == nil {
				t.Errorf("%+v was accepted", c)
			}
		}
	}
	if text, _ := os.ReadFile(users); string(text) != "#!/bin/sh\nexit 0\n" {
		t.Error("the user's own hook was touched")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".kvswitch*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}
