package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// pair is two hosts on one cable, with addresses.
func pair(t *testing.T) (a, b *Host) {
	lab := New(t)
	a, b = lab.Host("a"), lab.Host("b")
	lab.Cable(a, "eth0", b, "eth0")
	a.Addr("eth0", "192.0.2.1/24")
	b.Addr("eth0", "192.0.2.2/24")
	return a, b
}

func TestHostsOnACableReachEachOther(t *testing.T) {
	a, b := pair(t)
	a.Reaches("192.0.2.2")
	a.Transfer(b, netip.MustParseAddr("192.0.2.2"), 1<<20, 10*time.Second)
	if n := a.ChecksumErrors() + b.ChecksumErrors(); n != 0 {
		t.Errorf("%d checksum errors", n)
	}
}

func TestTransferToNobodyFails(t *testing.T) {
	a, b := pair(t)
	b.Down("eth0")
	if err := a.TryTransfer(b, netip.MustParseAddr("192.0.2.2"), 1, 300*time.Millisecond); err == nil {
		t.Error("moved a byte over a cable that is down")
	}
}

func TestDoReturnsToTheOwnNamespace(t *testing.T) {
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	h := New(t).Host("a")
	var inside string
	if err := h.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if inside == before || after != before {
		t.Errorf("before %s, inside %s, after %s", before, inside, after)
	}
}

func TestStationSeesTagsWhereTheyWere(t *testing.T) {
	a, b := pair(t)
	from, to := a.Station("eth0"), b.Station("eth0")
	head := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	for _, tc := range []struct {
		name string
		tags []byte
	}{
		{"untagged", nil},
		{"C-tag", []byte{0x81, 0, 0x60, 10}},
		{"priority tag", []byte{0x81, 0, 0xe0, 0}},
		{"S-tag", []byte{0x88, 0xa8, 0x0f, 0xff}},
		{"two tags", []byte{0x88, 0xa8, 0, 100, 0x81, 0, 0, 10}},
		{"two C-tags", []byte{0x81, 0, 0, 1, 0x81, 0, 0, 2}},
	} {
		frame := bytes.Join([][]byte{head, tc.tags, {0x88, 0xb5}, []byte(strings.Repeat("payload ", 8))}, nil)
		from.Send(frame)
		got, ok := to.Recv(time.Second)
		if !ok || !bytes.Equal(got, frame) {
			t.Errorf("%s: received % x, want % x", tc.name, got, frame)
		}
	}
	if f, ok := from.Recv(0); ok {
		t.Errorf("a station saw its own frame: % x", f)
	}
}

func TestRecvOfZeroTakesWhatIsThere(t *testing.T) {
	a, b := pair(t)
	from, to := a.Station("eth0"), b.Station("eth0")
	if f, ok := to.Recv(0); ok {
		t.Errorf("received % x before anything was sent", f)
	}
	from.Send(bytes.Repeat([]byte{2}, 60))
	Await(t, time.Second, "the frame is there", func() error {
		if _, ok := to.Recv(0); !ok {
			return errors.New("nothing")
		}
		return nil
	})
}

func TestEndsOfACableDifferInIndex(t *testing.T) {
	l := New(t)
	a, b := l.Host("a"), l.Host("b")
	for _, name := range []string{"eth0", "eth1"} {
		l.Cable(a, name, b, name)
		if i := a.Index(name); i == b.Index(name) {
			t.Errorf("%s has index %d on both hosts", name, i)
		}
	}
}

func TestAuxTag(t *testing.T) {
	message := func(status uint32, tci, tpid uint16) []byte {
		b := make([]byte, unix.CmsgSpace(sizeofAuxdata))
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(sizeofAuxdata)))
		binary.NativeEndian.PutUint32(b[8:], unix.SOL_PACKET)
		binary.NativeEndian.PutUint32(b[12:], unix.PACKET_AUXDATA)
		binary.NativeEndian.PutUint32(b[16:], status)
		binary.NativeEndian.PutUint16(b[32:], tci)
		binary.NativeEndian.PutUint16(b[34:], tpid)
		return b
	}
	const valid, withTPID = unix.TP_STATUS_VLAN_VALID, unix.TP_STATUS_VLAN_TPID_VALID
	for _, tc := range []struct {
		name string
		oob  []byte
		want frame.Tag
	}{
		{"nothing", nil, 0},
		{"no tag", message(0, 5, 0x8100), 0},
		{"C-tag by default", message(valid, 5, 0), 0x81000005},
		{"VID 0", message(valid|withTPID, 0, 0x8100), 0x81000000},
		{"S-tag", message(valid|withTPID, 0xffff, 0x88a8), 0x88a8ffff},
	} {
		got, err := auxTag(tc.oob)
		if err != nil || got != tc.want {
			t.Errorf("%s: %#x, %v, want %#x", tc.name, uint32(got), err, uint32(tc.want))
		}
	}
}

func TestStartedProcess(t *testing.T) {
	h := New(t).Host("a")
	p := h.Start(exec.Command("sh", "-c", "readlink /proc/self/ns/net; echo oops >&2; trap 'exit 3' TERM; while :; do sleep 0.01; done"))
	want := h.Run("readlink", "/proc/self/ns/net") + "\noops\n"
	Await(t, 5*time.Second, "log", func() error {
		if got := p.Log(); got != want {
			return fmt.Errorf("log %q, want %q", got, want)
		}
		return nil
	})
	var exit *exec.ExitError
	if err := p.Stop(5 * time.Second); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("stopped with %v, want exit status 3", err)
	}
}

func TestStopKillsWhatIgnoresIt(t *testing.T) {
	p := Start(t, exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done"))
	Await(t, 5*time.Second, "ready", func() error {
		if p.Log() == "" {
			return errors.New("no output yet")
		}
		return nil
	})
	if err := p.Stop(50 * time.Millisecond); err == nil || !p.ended() {
		t.Errorf("error %v, ended %v", err, p.ended())
	}
}

func TestProcessorTime(t *testing.T) {
	sleeper := Start(t, exec.Command("sleep", "1000"))
	worker := Start(t, exec.Command("sh", "-c", "while :; do :; done"))
	used := func(p *Proc) time.Duration {
		d, err := p.CPU()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	Await(t, 20*time.Second, "the worker uses half a second", func() error {
		if d := used(worker); d < 500*time.Millisecond {
			return fmt.Errorf("%v so far", d)
		}
		return nil
	})
	if d := used(sleeper); d > 100*time.Millisecond {
		t.Errorf("a sleeping process used %v", d)
	}
}

func TestChecksumErrors(t *testing.T) {
	for text, want := range map[string]uint64{
		"": 0,
		"Tcp: RtoMin InCsumErrors\nTcp: 200 3\nUdp: InDatagrams InCsumErrors\nUdp: 7 4\n": 7,
		"Udp6InErrors 9\nUdp6InCsumErrors                \t2\nUdp6IgnoredMulti 5\n":       2,
	} {
		if got := checksumErrors(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestAbandoned(t *testing.T) {
	for name, want := range map[string]bool{
		fmt.Sprintf("kvs-%d-1-a", os.Getpid()): false,
		"kvs-999999999-1-a":                    true,
		"kvs-999999999":                        false,
		"kvs-x-1":                              false,
		"other-999999999-1":                    false,
	} {
		if got := abandoned(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestProgram(t *testing.T) {
	var log bytes.Buffer
	var order []string
	err := Program("p", &log, func(tb TB) {
		tb.Cleanup(func() { order = append(order, "first") })
		tb.Cleanup(func() {
			order = append(order, "last")
			if tb.Context().Err() == nil {
				t.Error("context lives during cleanup")
			}
		})
		tb.Fatalf("reason %d", 7)
		t.Error("went on after Fatalf")
	})
	if err == nil || log.String() != "reason 7\n" || strings.Join(order, " ") != "last first" {
		t.Errorf("error %v, log %q, cleanups %v", err, log.String(), order)
	}
	if err := Program("p", &log, func(TB) {}); err != nil {
		t.Errorf("nothing went wrong, yet: %v", err)
	}
}

// TestKilledTestLeavesNothing runs this test binary again, kills it in the
// middle of a lab, and looks for what it had.
func TestKilledTestLeavesNothing(t *testing.T) {
	if dir := os.Getenv("NETLAB_VICTIM"); dir != "" {
		victim(t, dir)
	}
	RequirePrivilege(t)
	dir := Dir(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilledTestLeavesNothing$", "-test.timeout=30s")
	cmd.Env = append(os.Environ(), "NETLAB_VICTIM="+dir)
	p := Start(t, cmd)
	ready := filepath.Join(dir, "ready")
	var child string
	Await(t, 20*time.Second, "victim builds its lab", func() error {
		b, err := os.ReadFile(ready)
		child = string(b)
		return err
	})
	p.Kill()
	Await(t, 10*time.Second, "everything of the victim is gone", func() error {
		mine := fmt.Sprintf("kvs-%d-*", p.Pid())
		left, _ := filepath.Glob(filepath.Join(netnsDir, mine))
		dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), mine))
		if left = append(left, dirs...); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		if _, err := os.Stat("/proc/" + child); err == nil {
			return fmt.Errorf("process %s lives", child)
		}
		return nil
	})
}

func victim(t *testing.T, dir string) {
	h := New(t).Host("victim")
	p := h.Start(exec.Command("sleep", "1000"))
	tmp := filepath.Join(dir, "new")
	if err := os.WriteFile(tmp, fmt.Append(nil, p.Pid()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, "ready")); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
}
