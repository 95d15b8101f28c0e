package link

import (
	"errors"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// inNamespace puts the test's thread into a network namespace of its own, which
// vanishes with the thread when the test is over.
func inNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EPERM) && os.Getenv("CI") == "" {
			t.Skip("needs CAP_SYS_ADMIN for a network namespace")
		}
		t.Fatal(err)
	}
}

func newWatcher(t *testing.T) *Watcher {
	t.Helper()
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func addVeth(t *testing.T, name, peer string) {
	t.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1}, PeerName: peer}
	if err := netlink.LinkAdd(v); err != nil {
		t.Fatalf("add veth: %v", err)
	}
}

type change struct {
	link Link
	gone bool
}

// follow collects changes; await returns the first that satisfies ok.
func follow(t *testing.T, w *Watcher) (await func(what string, ok func(Link, bool) bool) Link) {
	t.Helper()
	changes := make(chan change, 1000)
	w.Do(func() { w.Follow(func(l Link, gone bool) { changes <- change{l, gone} }) })
	return func(what string, ok func(Link, bool) bool) Link {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			select {
			case c := <-changes:
				if ok(c.link, c.gone) {
					return c.link
				}
			case <-deadline:
				t.Fatalf("never heard of: %s", what)
			}
		}
	}
}

func TestFollowersHearEveryChangeOfADevice(t *testing.T) {
	inNamespace(t)
	w := newWatcher(t)
	await := follow(t, w)

	addVeth(t, "one", "two")
	born := await("birth", func(l Link, gone bool) bool { return l.Name == "one" && !gone })
	if born.Up || born.Running || born.Kind != "veth" || !born.Ethernet || born.Loopback || born.MTU != 1500 || born.MAC.IsZero() {
		t.Errorf("new veth is %+v", born)
	}
	one := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: born.Index}}
	mine := func(f func(Link) bool) func(Link, bool) bool {
		return func(l Link, gone bool) bool { return l.Index == born.Index && !gone && f(l) }
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(netlink.LinkSetUp(one))
	await("up without carrier", mine(func(l Link) bool { return l.Up && !l.Running }))
	two, err := netlink.LinkByName("two")
	do(err)
	do(netlink.LinkSetUp(two))
	await("carrier", mine(func(l Link) bool { return l.Up && l.Running }))
	do(netlink.LinkSetMTU(one, 9000))
	await("MTU", mine(func(l Link) bool { return l.MTU == 9000 }))
	mac, _ := frame.ParseMAC("02:00:00:00:12:34")
	do(netlink.LinkSetHardwareAddr(one, mac[:]))
	await("MAC", mine(func(l Link) bool { return l.MAC == mac }))
	do(netlink.LinkSetDown(one))
	await("down", mine(func(l Link) bool { return !l.Up }))
	do(netlink.LinkSetName(one, "uno"))
	await("rename", mine(func(l Link) bool { return l.Name == "uno" }))
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "brx", TxQLen: -1}}
	if err := netlink.LinkAdd(bridge); err == nil {
		do(netlink.LinkSetMaster(one, bridge))
		await("bridge takes it", mine(func(l Link) bool { return l.Master == bridge.Index }))
		do(netlink.LinkSetNoMaster(one))
		await("bridge gives it back, which is not its end", mine(func(l Link) bool { return l.Master == 0 }))
	}
	do(netlink.LinkDel(one))
	await("death", func(l Link, gone bool) bool { return l.Index == born.Index && gone })
}

func TestWatcherAnswersFromItsOwnNamespaceWhateverTheCallersThread(t *testing.T) {
	inNamespace(t)
	w := newWatcher(t)
	addVeth(t, "onlyhere", "peer")
	type answer struct {
		l   Link
		err error
	}
	got := make(chan answer)
	go func() { // another thread, in the process's own namespace
		var a answer
		w.Do(func() { a.l, a.err = w.ByName("onlyhere") })
		got <- a
	}()
	a := <-got
	if a.err != nil || a.l.Name != "onlyhere" {
		t.Fatalf("ByName = %+v, %v", a.l, a.err)
	}
	w.Do(func() {
		if l, err := w.ByIndex(a.l.Index); err != nil || !reflect.DeepEqual(l, a.l) {
			t.Errorf("ByIndex = %+v, %v", l, err)
		}
		if _, err := w.ByName("nowhere"); !errors.Is(err, ErrNotFound) {
			t.Errorf("ByName of nothing: %v", err)
		}
		if _, err := w.ByIndex(1 << 20); !errors.Is(err, ErrNotFound) {
			t.Errorf("ByIndex of nothing: %v", err)
		}
	})
}

func TestResyncFindsWhatLostMessagesSaid(t *testing.T) {
	inNamespace(t)
	w := newWatcher(t)
	addVeth(t, "stays", "goes")
	var seen map[string]bool
	w.Do(func() {
		w.resync() // whatever the messages under way will say is known now
		// Forget one device and invent another, as if their messages were lost.
		for index, l := range w.known {
			if l.Name == "stays" {
				delete(w.known, index)
			}
		}
		w.known[1<<20] = Link{Index: 1 << 20, Name: "ghost"}
		seen = make(map[string]bool)
		stop := w.Follow(func(l Link, gone bool) { seen[l.Name] = gone })
		w.resync()
		stop()
		w.known[1<<20] = Link{Index: 1 << 20, Name: "nobody hears of it"}
		w.resync()
	})
	if gone, heard := seen["stays"]; !heard || gone {
		t.Error("a device whose birth was lost is not reported")
	}
	if gone, heard := seen["ghost"]; !heard || !gone {
		t.Error("a device whose death was lost is not reported")
	}
	if n := len(seen); n != 4 { // and lo, and the veth's other end
		t.Errorf("%d devices reported, want 4: %v", n, seen)
	}
}

func TestOverflowOfTheSubscriptionIsMadeGood(t *testing.T) {
	inNamespace(t)
	w := newWatcher(t)
	addVeth(t, "a", "b")
	a, err := netlink.LinkByName("a")
	if err != nil {
		t.Fatal(err)
	}
	hold, held := make(chan struct{}), make(chan struct{})
	mtus := make(chan int, 10000)
	go w.Do(func() {
		w.Follow(func(l Link, gone bool) {
			if l.Name == "a" {
				mtus <- l.MTU
			}
		})
		if err := w.sock.SetReceiveBufferSize(1, false); err != nil { // the kernel's minimum
			t.Error(err)
		}
		close(held)
		<-hold // deaf while everything happens
	})
	<-held
	for mtu := 1499; mtu >= 1000; mtu-- {
		if err := netlink.LinkSetMTU(a, mtu); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	for deadline := time.After(10 * time.Second); ; {
		select {
		case mtu := <-mtus:
			if mtu == 1000 {
				return
			}
		case <-deadline:
			t.Fatal("the last change was lost for good")
		}
	}
}

func TestCloseEndsTheWatcherAndDoSaysSo(t *testing.T) {
	inNamespace(t)
	before := runtime.NumGoroutine()
	fds := openFiles(t)
	for range 20 {
		w, err := NewWatcher()
		if err != nil {
			t.Fatal(err)
		}
		if !w.Do(func() {}) {
			t.Fatal("a running Watcher refused")
		}
		w.Close()
		w.Close()
		if w.Do(func() { t.Error("ran after Close") }) {
			t.Fatal("a closed Watcher accepted")
		}
	}
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines before, %d after", before, now)
	}
	if now := openFiles(t); now > fds {
		t.Errorf("%d open files before, %d after", fds, now)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestCheckNameKnowsTheKernelsRules(t *testing.T) {
	for _, name := range []string{"eth0", "enp3s0f1np1", "a", "fifteen-bytes-x", "br-12.5@x", "é", "\xff"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", ".", "..", "sixteen-bytes-xx", "a/b", "a b", "a\tb", "eth0:1", "nul\x00", "à", "\xa0"} {
		err := CheckName(name)
		if err == nil {
			t.Errorf("%q passes", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error is not one line: %v", name, err)
		}
	}
}
