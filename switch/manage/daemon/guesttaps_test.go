package daemon

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/switch/host/link"
)

// waits are a guestTaps' waits, which end when the test says so.
type waits struct {
	*guestTaps
	pending []*wait
	removed []string
}

type wait struct {
	d       time.Duration
	f       func()
	stopped bool
}

func newWaits() *waits {
	w := &waits{}
	w.guestTaps = newGuestTaps(func(name string) { w.removed = append(w.removed, name) })
	w.after = func(d time.Duration, f func()) func() {
		p := &wait{d: d, f: f}
		w.pending = append(w.pending, p)
		return func() { p.stopped = true }
	}
	return w
}

// elapse ends the waits that nobody stopped.
func (w *waits) elapse() {
	for _, p := range w.pending {
		if !p.stopped {
			p.f()
		}
	}
	w.pending = nil
}

func TestGuestsPortGoesFiveSecondsAfterItsTap(t *testing.T) {
	tap := func(name string, index int) link.Link { return link.Link{Name: name, Index: index} }
	for _, tc := range []struct {
		name string
		do   func(w *waits)
		want []string
	}{
		{"gone", func(w *waits) { w.linkChanged(tap("tap0", 7), true) }, []string{"tap0"}},
		{"gone twice", func(w *waits) { w.linkChanged(tap("tap0", 7), true); w.linkChanged(tap("tap0", 7), true) }, []string{"tap0"}},
		{"changed", func(w *waits) { w.linkChanged(tap("tap0", 7), false) }, nil},
		{"another of its name", func(w *waits) { w.linkChanged(tap("tap0", 9), true) }, nil},
		{"not a guest's", func(w *waits) { w.linkChanged(tap("eth0", 3), true) }, nil},
		{"back in time", func(w *waits) { w.linkChanged(tap("tap0", 7), true); w.linkChanged(tap("tap0", 8), false) }, nil},
		{"back and gone again", func(w *waits) {
			w.linkChanged(tap("tap0", 7), true)
			w.linkChanged(tap("tap0", 8), false)
			w.linkChanged(tap("tap0", 8), true)
		}, []string{"tap0"}},
		{"removed meanwhile", func(w *waits) { w.linkChanged(tap("tap0", 7), true); w.del("tap0") }, nil},
		{"made anew meanwhile", func(w *waits) { w.linkChanged(tap("tap0", 7), true); w.add("tap0", 8) }, nil},
		{"the switch stops", func(w *waits) { w.linkChanged(tap("tap0", 7), true); w.close() }, nil},
	} {
		w := newWaits()
		w.add("tap0", 7)
		tc.do(w)
		for _, p := range w.pending {
			if p.d != 5*time.Second {
				t.Errorf("%s: it waits %v", tc.name, p.d)
			}
		}
		w.elapse()
		if !slices.Equal(w.removed, tc.want) {
			t.Errorf("%s: removed %v, want %v", tc.name, w.removed, fmt.Sprint(tc.want))
		}
	}
}
