package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A file with a dozen mistakes is read once, not a dozen times: each is a line
// that says where, what stands together is looked at too, and nothing is started.
func TestCheckFindsEveryMistakeInAFile(t *testing.T) {
	dir := t.TempDir()
	h := &host{t: t, dir: dir}
	file := filepath.Join(dir, "bad.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`name: kvs0
colour: red
stp: maybe
uplinks: [eth0, "eth1,colour=red"]
ports:
  - tap:kvs0
  - stream:a,vlan=10
  - {kind: vhost-user, name: v, queues: 900, path: /x}
  - {kind: tap, name: t, vlan: 5000}
  - netdev:eth0
  - tap:t0,owner=nobody-of-this-name
hello: 10s
max-age: 6s
fdb:
  - {mac: nonsense, port: a}
  - 7
`)
	want := []string{
		`2:1: unknown key "colour"`,
		`3:6: stp "maybe"`,
		`4:17: parse port "netdev:eth1,colour=red"`,
		`9:26: set vlan=5000`,
		`10:5: port eth0 is given twice`,
		`15:11: parse MAC "nonsense"`,
		`16:5: an fdb entry must be keys with values`,
		`6:5: port kvs0 has the name of the host interface`,
		`7:5: open port a: want path=SOCKET`,
		`8:5: open port v: queues=900`,
		`11:5: open port t0: owner=nobody-of-this-name`,
		`13:10: warning: max-age 6`,
		`7:5: warning: a: its VLAN settings have no effect`,
	}
	for _, words := range [][]string{{"config", "check", file}, {"run", "--check", "--config", file}} {
		r := h.kvswitch(words...)
		lines := strings.Split(strings.TrimSuffix(r.errors, "\n"), "\n")
		if r.code != 1 || r.out != "" || len(lines) != len(want) {
			t.Fatalf("%q: exit %d, %d lines:\n%s%s", words, r.code, len(lines), r.out, r.errors)
		}
		for i, w := range want {
			if !strings.HasPrefix(lines[i], file+":"+w) {
				t.Errorf("line %d is %q, want %q", i+1, lines[i], w)
			}
		}
	}
	for text, want := range map[string]string{
		"fdb: [{mac: '52:54:00:00:00:01', port: b}]":                                                           ":1:7: fdb entry 52:54:00:00:00:01 vlan 1 on b: the file has no port b",
		"ports: ['stream:a,path=/x']\nfdb: [{mac: '52:54:00:00:00:01', vlan: 7, port: a}]":                     ":2:7: fdb entry 52:54:00:00:00:01 vlan 7 on a: the switch does not filter VLANs",
		"vlan-filtering: on\nports: ['stream:a,path=/x']\nfdb: [{mac: '52:54:00:00:00:01', vlan: 7, port: a}]": ":3:7: fdb entry 52:54:00:00:00:01 vlan 7 on a: port a is not in VLAN 7",
		"a: [": ":1:",
	} {
		write(text + "\n")
		if r := h.kvswitch("config", "check", file); r.code != 1 || !strings.HasPrefix(r.errors, file+want) || strings.Count(r.errors, "\n") != 1 {
			t.Errorf("%s: exit %d: %s", text, r.code, r.errors)
		}
	}
	write("ports: ['stream:a,path=/x,vlan=10']\n")
	if r := h.kvswitch("config", "check", file); r.code != 0 || r.out != file+": ok\n" || strings.Count(r.errors, ": warning: ") != 1 {
		t.Errorf("%+v", r)
	}
	if out := h.must("run", "--check", "--config", file, "--vlan-filtering"); out != file+": ok\n" {
		t.Errorf("%s", out)
	}
	h.refused(2, `--workers "0"`, "run", "--check", "--workers", "0")
	h.refused(2, "want path=SOCKET", "run", "--check", "--port", "stream:x")
	h.refused(1, "no such file", "config", "check", filepath.Join(dir, "nosuch"))
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); !slices.Equal(left, []string{file}) {
		t.Errorf("left behind: %v", left)
	}
}

// README's file is right as it stands there.
func TestReadmesFileIsRight(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<<'END'\n")
	example, _, end := strings.Cut(rest, "\nEND\n")
	if !ok || !end {
		t.Fatal("README has no file between <<'END' and END")
	}
	h := &host{t: t, dir: t.TempDir()}
	file := h.socket("kvs0.yaml")
	if err := os.WriteFile(file, []byte(example+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := h.kvswitch("config", "check", file); r.code != 0 || r.errors != "" {
		t.Errorf("%s\n%+v", example, r)
	}
}
