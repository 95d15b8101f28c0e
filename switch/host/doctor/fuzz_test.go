package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever the files of /proc hold and the kernel calls itself, each check has
// one finding of one line.
func FuzzExamine(f *testing.F) {
	f.Add("6.1.0-18-amd64", []byte("CapEff:\t000001ffffffffff\n"), []byte("HugePages_Total:     512\nHugePages_Free:        0\nHugepagesize:       2048 kB\n"))
	f.Add("4.19", []byte("CapEff:\t0\n"), []byte(""))
	f.Add("", []byte("CapEff: x"), []byte("HugePages_Total: -1"))
	f.Add("6", []byte(""), []byte("HugePages_Total:\n"))
	root := f.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "proc/self"), 0o755); err != nil {
		f.Fatal(err)
	}
	none := func() error { return nil }
	f.Fuzz(func(t *testing.T, release string, status, meminfo []byte) {
		for name, text := range map[string][]byte{"proc/self/status": status, "proc/meminfo": meminfo} {
			if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		h := Host{Root: root, RunDir: "/", VHost: none, TCX: none, Intake: none, InKernel: none,
			Uname: func() (string, error) { return strings.ToValidUTF8(release, "?"), nil },
			QEMU:  func() (string, error) { return release, nil },
			Limit: func() (uint64, error) { return wantFiles, nil }}
		for _, x := range h.Examine() {
			if x.Check == "" || x.Text == "" || x.Status != OK && x.Status != Warn && x.Status != Missing || x.Status == Missing && x.Mend == "" {
				t.Errorf("finding %+v", x)
			}
		}
	})
}
