package putback_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/host/link"
	"github.com/kvswitch/kvswitch/switch/host/putback"
)

func device(name string, index int, mac byte) *link.Link {
	return &link.Link{Name: name, Index: index, MAC: frame.MAC{2, 0, 0, 0, 0, mac}}
}

// change says that a setting is about to be changed and wants to be told before.
func change(t *testing.T, s *putback.Store, l *link.Link, now, ours, before string) {
	t.Helper()
	if got, err := s.Change(l, "mode", now, ours); err != nil || got != before {
		t.Errorf("%s from %s to %s: to put back %q, %v; want %q", l.Name, now, ours, got, err, before)
	}
}

func left(t *testing.T, s *putback.Store) []putback.Record {
	t.Helper()
	list, err := s.Left()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestWhatAKilledProcessChangedIsNotTakenForTheUsersChoice(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "devices")
	eth0 := device("eth0", 7, 1)
	change(t, putback.New(dir), eth0, "0", "1", "0")
	// A new process finds its own value there, and knows what was before.
	s := putback.New(dir)
	if list := left(t, s); len(list) != 1 || list[0].Settings["mode"] != "0" || !list[0].Is(eth0) {
		t.Fatalf("left: %+v", list)
	}
	change(t, s, eth0, "1", "1", "0")
	// What somebody set since counts more.
	change(t, s, eth0, "3", "1", "3")
	if err := s.Done(eth0, "mode"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("something is left of the store: %v", err)
	}
	change(t, s, eth0, "1", "1", "") // by somebody's choice
	if list := left(t, s); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
}

func TestADeviceIsKnownByIndexAndNameOrAddress(t *testing.T) {
	for _, c := range []struct {
		what string
		now  *link.Link
		same bool
	}{
		{"as it was", device("eth0", 7, 1), true},
		{"renamed", device("wan0", 7, 1), true},
		{"with another address", device("eth0", 7, 9), true},
		{"another with its index", device("wan0", 7, 9), false},
		{"another with its name and address", device("eth0", 8, 1), false},
	} {
		s := putback.New(filepath.Join(t.TempDir(), "devices"))
		change(t, s, device("eth0", 7, 1), "0", "1", "0")
		want := ""
		if c.same {
			want = "0"
		}
		change(t, s, c.now, "1", "1", want)
	}
}

func TestRecordsOfAnotherBootAndWhatIsNoRecordAreRemoved(t *testing.T) {
	dir := t.TempDir()
	s := putback.New(dir)
	change(t, s, device("eth0", 7, 1), "0", "1", "0")
	files, _ := filepath.Glob(filepath.Join(dir, "*.device"))
	text, err := os.ReadFile(files[0])
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(string(text), strings.TrimSpace(string(boot)), "00000000-0000-0000-0000-000000000000", 1)
	for name, text := range map[string]string{files[0]: old, filepath.Join(dir, "1-1.device"): "{", filepath.Join(dir, "1-2.device"): ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "1-3.device")); err != nil {
		t.Fatal(err)
	}
	if list := left(t, s); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 0 {
		t.Errorf("files: %v", files)
	}
}

func TestAStoreThatCannotBeWrittenSaysSoAndGivesTheValue(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := putback.New(filepath.Join(file, "devices")).Change(device("eth0", 7, 1), "mode", "0", "1")
	if got != "0" || err == nil {
		t.Errorf("%q, %v", got, err)
	}
	var none *putback.Store
	if got, err := none.Change(device("eth0", 7, 1), "mode", "0", "1"); got != "0" || err != nil {
		t.Errorf("without a store: %q, %v", got, err)
	}
}
