package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A switch without any privilege has every kind of port that needs none.
func TestUnprivilegedPortsOfARunningSwitch(t *testing.T) {
	h := start(t)
	h.must("port", "add", "vhost-user:v,path="+h.socket("v")+",queues=2")
	h.must("port", "add", "dgram:d,local="+h.socket("d")+",remote="+h.socket("peer"))
	h.must("port", "add", "stream:s,path="+h.socket("s"))
	if st := h.status(); len(st.Ports) != 3 {
		t.Errorf("ports: %+v", st.Ports)
	}
	if out := h.must("port", "show", "v"); !strings.Contains(out, "kind") || !strings.Contains(out, "vhost-user") {
		t.Errorf("port show v:\n%s", out)
	}
	dump := h.must("config", "dump")
	for _, want := range []string{"- vhost-user:v,path=" + h.socket("v") + ",queues=2\n", "- dgram:d,local="} {
		if !strings.Contains(dump, want) {
			t.Errorf("no %q in\n%s", want, dump)
		}
	}
	h.refused(1, "queues=200: want a number from 1 to 128", "port", "add", "vhost-user:w,path="+h.socket("w")+",queues=200")
	for _, name := range []string{"v", "d", "s"} {
		h.must("port", "del", name)
		if _, err := os.Lstat(h.socket(name)); !os.IsNotExist(err) {
			t.Errorf("%s: its socket is left: %v", name, err)
		}
	}
}

func TestBridgeHelperTakesQEMUsArguments(t *testing.T) {
	h := &host{t: t, dir: t.TempDir()}
	t.Setenv("KVSWITCH_RUN_DIR", h.dir)
	helper := func(args ...string) result {
		return run(t, program(t, h.dir, append([]string{"bridge-helper"}, args...)...))
	}
	for _, tc := range []struct {
		args []string
		code int
		text string
	}{
		{nil, 2, "--br=NAME is missing"},
		{[]string{"--br=kvs0"}, 2, "--fd=N is missing"},
		{[]string{"--br=kvs0", "--fd=x"}, 2, "want the number of a descriptor"},
		{[]string{"--colour"}, 2, "want [--use-vnet] --br=NAME --fd=N"},
		{[]string{"--use-vnet", "--br=kvs0", "--fd=3"}, 1, "kvs0"},
		{[]string{"--run-dir"}, 2, "want [--use-vnet] --br=NAME --fd=N"},
	} {
		r := helper(tc.args...)
		if r.code != tc.code || !strings.Contains(r.errors, tc.text) || strings.Count(r.errors, "\n") != 1 {
			t.Errorf("%q: exit %d: %q", tc.args, r.code, r.errors)
		}
	}
}

func TestBridgeHelperTakesTheRunDirectory(t *testing.T) {
	h := &host{t: t, dir: t.TempDir()}
	elsewhere := filepath.Join(h.dir, "elsewhere")
	// What it can't reach names the directory that it looked in.
	h.refused(1, filepath.Join(h.dir, "kvs0.helper.sock"), "bridge-helper", "--br=kvs0", "--fd=3")
	h.refused(1, filepath.Join(elsewhere, "kvs0.helper.sock"), "--run-dir="+elsewhere, "bridge-helper", "--br=kvs0", "--fd=3")
}

func TestVMVerbs(t *testing.T) {
	h := start(t)
	if list := decode[[]map[string]any](h, "vm", "list"); len(list) != 0 {
		t.Errorf("vm list: %v", list)
	}
	h.refused(2, "give --qmp", "vm", "attach")
	h.refused(2, "give --id", "vm", "detach", "--qmp", "/x")
	h.refused(2, "parse MAC", "vm", "attach", "--qmp", "/x", "--mac", "52:54")
	h.refused(2, "not key=value", "vm", "attach", "--qmp", "/x", "--set", "isolated")
	h.refused(1, "nosuch.qmp", "vm", "attach", "--qmp", h.socket("nosuch.qmp"))
	h.refused(1, "not attached by this switch", "vm", "detach", "--qmp", "/x", "--id", "net1")
}

func TestLibvirtHookIsInstalledOnceAndCallsUs(t *testing.T) {
	dir := t.TempDir()
	h := &host{t: t, dir: dir}
	if out := h.must("libvirt", "hooks", "install", "--dir", dir); !strings.Contains(out, ": installed") {
		t.Errorf("install: %s", out)
	}
	if out := h.must("libvirt", "hooks", "install", "--dir", dir); !strings.Contains(out, ": there already") {
		t.Errorf("install again: %s", out)
	}
	// What the hook runs, for a guest without interfaces of ours: nothing to do,
	// and no switch is needed for it.
	cmd := program(t, dir, "libvirt", "hook", "guest", "start", "begin", "-")
	cmd.Stdin = strings.NewReader("<domain type='kvm'><name>guest</name></domain>")
	if r := run(t, cmd); r.code != 0 || r.errors != "" {
		t.Errorf("hook: %+v", r)
	}
	if out := h.must("libvirt", "hooks", "uninstall", "--dir", dir); !strings.Contains(out, ": removed") {
		t.Errorf("uninstall: %s", out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "qemu.d", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	// With an interface of ours and no switch, the guest does not start.
	cmd = program(t, dir, "libvirt", "hook", "guest", "start", "begin", "-")
	cmd.Stdin = strings.NewReader("<domain type='kvm'><name>guest</name><uuid>6a1d5c1e-93a5-4d4e-8f3a-2f6a2f1c7f10</uuid><devices><interface type='ethernet'><target dev='vnet0'/></interface></devices></domain>")
	if r := run(t, cmd); r.code != 1 || !strings.Contains(r.errors, "no switch is running") {
		t.Errorf("hook without a switch: %+v", r)
	}
}
