package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// make install puts the programs, the unit and what three shells complete by where
// they are looked for, and make uninstall takes all of it away again.
func TestInstallAndUninstall(t *testing.T) {
	root := netns.Dir(t)
	build := filepath.Dir(program)
	target := func(name string) {
		t.Helper()
		// The programs under test, which are not built once more under others' feet.
		cmd := exec.Command("make", "-C", "../../..", "-o", "build", name, "DESTDIR="+root, "BUILT="+build)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v\n%s", name, err, out)
		}
	}
	files := func() (names []string) {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				names = append(names, strings.TrimPrefix(path, root+"/usr/local/"))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	target("install")
	want := []string{"bin/kvswitch", "bin/kvswitch-bench", "bin/kvswitch-bridge-helper", "bin/kvswitch-ifdown", "bin/kvswitch-ifup",
		"lib/systemd/system/kvswitch@.service", "share/bash-completion/completions/kvswitch",
		"share/fish/vendor_completions.d/kvswitch.fish", "share/zsh/site-functions/_kvswitch"}
	dashboards, err := filepath.Glob("../grafana/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dashboards {
		want = append(want, "share/kvswitch/grafana/"+filepath.Base(d))
	}
	slices.Sort(want)
	if got := files(); !slices.Equal(got, want) {
		t.Errorf("installed %q, want %q", got, want)
	}
	for name, text := range map[string]string{
		"lib/systemd/system/kvswitch@.service":          "exec /usr/local/bin/kvswitch run",
		"share/bash-completion/completions/kvswitch":    "__start_kvswitch",
		"share/fish/vendor_completions.d/kvswitch.fish": "complete -c kvswitch",
		"share/zsh/site-functions/_kvswitch":            "#compdef kvswitch",
	} {
		b, err := os.ReadFile(filepath.Join(root, "usr/local", name))
		if err != nil || !strings.Contains(string(b), text) || strings.Contains(string(b), "@PREFIX@") {
			t.Errorf("%s: %v, want %q in it and no @PREFIX@", name, err, text)
		}
	}
	target("uninstall")
	if got := files(); got != nil {
		t.Errorf("left behind: %q", got)
	}
}
