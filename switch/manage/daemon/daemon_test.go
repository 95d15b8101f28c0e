package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// optionsOf are options with a file of this text, in a directory of their own.
// The ports in the file are sockets, which need no privilege.
func optionsOf(t *testing.T, text string) Options {
	t.Helper()
	dir := t.TempDir()
	o := Options{RunDir: filepath.Join(dir, "run"), File: filepath.Join(dir, "kvs0.yaml"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	write(t, &o, text)
	return o
}

func write(t *testing.T, o *Options, text string) {
	t.Helper()
	text = strings.ReplaceAll(text, "DIR", filepath.Dir(o.File))
	if err := os.WriteFile(o.File, []byte("host: off\n"+text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const everything = `
ageing: 30s
stp: stp
vlan-filtering: on
ports: ['stream:a,path=DIR/a,vlan=7', 'dgram:b,local=DIR/b,remote=DIR/c,isolated=on']
uplinks: ['stream:up,path=DIR/up']
fdb: [{mac: '52:54:00:00:00:01', vlan: 7, port: a}]
`

// A switch that starts with a file, and one that starts with nothing and reloads
// it, are the same, ports' numbers and all.
func TestStartIsAReloadFromNothing(t *testing.T) {
	dump := func(d *Daemon) string {
		text, err := d.Config()
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(text), filepath.Dir(d.options.File), "DIR")
	}
	numbers := func(d *Daemon) (list []string) {
		for _, p := range d.sw.Status().Ports {
			list = append(list, p.Name)
		}
		return list
	}
	const mac = "mac: 52:54:00:00:00:99\n"
	started, err := New(optionsOf(t, mac+everything))
	if err != nil {
		t.Fatal(err)
	}
	defer started.close()
	reloaded, err := New(optionsOf(t, mac+"vlan-filtering: on"))
	if err != nil {
		t.Fatal(err)
	}
	defer reloaded.close()
	write(t, &reloaded.options, mac+everything)
	changes, err := reloaded.Reload()
	if err != nil || len(changes) != 6 {
		t.Fatalf("%v, %q", err, changes)
	}
	if a, b := dump(started), dump(reloaded); a != b {
		t.Errorf("started:\n%s\nreloaded:\n%s", a, b)
	}
	if a, b := numbers(started), numbers(reloaded); !slices.Equal(a, b) || len(a) != 3 {
		t.Errorf("ports by number: %v, %v", a, b)
	}
	if again, err := started.Reload(); err != nil || len(again) != 0 {
		t.Errorf("the same file once more: %v, %q", err, again)
	}
}

// A start that fails says what is wrong, as an option's fault or not, and leaves
// nothing, whichever part it was.
func TestStartThatFailsLeavesNothing(t *testing.T) {
	for _, tc := range []struct {
		text   string
		option config.KeyValue
		port   string
		want   string
		usage  bool
	}{
		{text: "ports: ['stream:a,path=DIR/a', 'stream:b,path=DIR/no/b']", want: "open port b: "},
		{text: "uplinks: ['stream:a,path=DIR/no/a']", want: "open port a: "},
		{text: "uplinks: ['stream:a,path=DIR/a']\nmac: '01:00:5e:00:00:01'", want: "01:00:5e:00:00:01"},
		{text: "vlan-filtering: on\nports: ['stream:a,path=DIR/a']\nfdb: [{mac: '52:54:00:00:00:01', vlan: 9, port: a}]",
			want: "add 52:54:00:00:00:01: port a is not in VLAN 9; `vlan add` it first"},
		{text: "colour: red", want: `unknown key "colour"`},
		{option: config.KeyValue{Key: "workers", Value: "none"}, want: `--workers "none": want a number from 1 to 64`, usage: true},
		{port: "nothing", want: `parse port "nothing"`, usage: true},
	} {
		o := optionsOf(t, tc.text)
		if tc.option.Key != "" {
			o.Words = []config.KeyValue{tc.option}
		}
		if tc.port != "" {
			o.Ports = []string{tc.port}
		}
		d, err := New(o)
		if err == nil {
			d.close()
			t.Fatalf("%s: started", tc.text)
		}
		var wrong *OptionError
		if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "nothing was changed") || errors.As(err, &wrong) != tc.usage {
			t.Errorf("%s: %v, an option's fault: %v", tc.text, err, errors.As(err, &wrong))
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(o.File), "*", "*")); len(left) != 0 {
			t.Errorf("%s: left behind: %v", tc.text, left)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(o.File), "[ab]")); len(left) != 0 {
			t.Errorf("%s: left behind: %v", tc.text, left)
		}
	}
}

func TestPortsComeWhileTheSwitchRuns(t *testing.T) {
	o := optionsOf(t, "")
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	path := filepath.Join(filepath.Dir(o.File), "a")
	spec, err := d.Kinds().ParseSpec("stream:a,path=" + path + ",isolated=on")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.AddPort(config.Port{Spec: spec}); err != nil {
		t.Fatal(err)
	}
	if cfg, err := d.sw.PortConfig("a"); err != nil || !cfg.Isolated || cfg.Uplink {
		t.Errorf("port %+v, %v", cfg, err)
	}
	// The same once more is refused before the first one's socket is touched.
	if err := d.AddPort(config.Port{Spec: spec}); !errors.Is(err, vswitch.ErrPortExists) {
		t.Errorf("twice: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(o.RunDir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the port's socket: %v", err)
	}
}
