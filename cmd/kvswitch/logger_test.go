package main

import (
	"bufio"
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/switch/host/doctor"
)

// For the journal a line has its priority in front and no time, whatever is said.
func TestJournalLines(t *testing.T) {
	var out bytes.Buffer
	log, err := logger("journal", &out, "")
	if err != nil {
		t.Fatal(err)
	}
	log = log.With("switch", "kvs0")
	log.Debug("not said")
	log.Info("port is up", "port", "eth0")
	log.Warn("guard holds port", "reason", "a BPDU\nfrom bridge 8000")
	log.WithGroup("g").Error("reload\nfailed", "time", 7)
	log.Log(t.Context(), slog.LevelInfo+1, "between")
	want := `<6>port is up switch=kvs0 port=eth0
<4>guard holds port switch=kvs0 reason="a BPDU\nfrom bridge 8000"
<3>reload failed switch=kvs0 g.time=7
<6>between switch=kvs0
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

// The journal's form is for where systemd leads the log, not for what inherited
// its environment.
func TestLogFormatSuitsWhereItGoes(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewReader(r)
	say := func(format string, out *os.File, stream string) string {
		t.Helper()
		log, err := logger(format, out, stream)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("said")
		if out == w {
			line, _ := lines.ReadString('\n')
			return line
		}
		text, _ := os.ReadFile(file.Name())
		file.Truncate(0)
		file.Seek(0, 0)
		return string(text)
	}
	for _, tc := range []struct {
		format string
		out    *os.File
		stream string
		want   string
	}{
		{"", w, "9:1", "<6>said\n"},
		{"", w, "", `{"time":`},
		{"json", w, "9:1", `{"time":`},
		{"text", w, "9:1", "time="},
		{"journal", w, "", "<6>said\n"},
		{"", file, "9:1", `{"time":`},
		{"journal", file, "", "<6>said\n"},
	} {
		if got := say(tc.format, tc.out, tc.stream); !strings.HasPrefix(got, tc.want) {
			t.Errorf("format %q, JOURNAL_STREAM %q, a file %v: %q, want %q", tc.format, tc.stream, tc.out == file, got, tc.want)
		}
	}
}

// Findings fit a terminal, and are one line each where there is none.
func TestFindingsFitTheTerminal(t *testing.T) {
	f := doctor.Finding{Check: "vhost-net", Status: doctor.Warn, Text: "frames go through QEMU: /dev/vhost-net is a very-long-word-that-can't-be-broken", Mend: "modprobe vhost_net"}
	whole := findingText(&f, 0)
	if strings.Contains(whole, "\n") || !strings.HasSuffix(whole, " -> modprobe vhost_net") {
		t.Errorf("without a terminal: %q", whole)
	}
	for _, width := range []int{60, 80, 200} {
		text := findingText(&f, width)
		for i, line := range strings.Split(text, "\n") {
			words := strings.Fields(line)
			if len(line) > width && len(words) > 1 || i > 0 && !strings.HasPrefix(line, strings.Repeat(" ", 27)) {
				t.Errorf("width %d: %q", width, line)
			}
		}
		if strings.Join(strings.Fields(text), " ") != strings.Join(strings.Fields(whole), " ") {
			t.Errorf("width %d changed the words: %q", width, text)
		}
	}
	if findingText(&f, 30) != whole {
		t.Error("a terminal too narrow for it is not worth wrapping for")
	}
}

// What is missing is the exit status, too.
func TestDoctorFailsWhereSomethingNeededIsMissing(t *testing.T) {
	h := &host{t: t, dir: filepath.Join(t.TempDir(), "file", "run")}
	if err := os.WriteFile(filepath.Dir(h.dir), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, words := range [][]string{{"doctor"}, {"doctor", "--json"}} {
		if r := h.kvswitch(words...); r.code != 1 || r.errors != "" || !strings.Contains(r.out, "can't take control sockets") {
			t.Errorf("%q: %+v", words, r)
		}
	}
}
