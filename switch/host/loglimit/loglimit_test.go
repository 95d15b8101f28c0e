package loglimit

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// book is a log in memory, without times.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (k *book) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.Write(p)
}

// take returns the lines written since it was last called.
func (k *book) take() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	text := strings.TrimSuffix(k.b.String(), "\n")
	k.b.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func open() (*book, *Handler, *slog.Logger) {
	k := new(book)
	h := New(slog.NewTextHandler(k, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}}))
	return k, h, slog.New(h)
}

func want(t *testing.T, what string, got []string, lines ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(lines, "\n"); g != w {
		t.Errorf("%s: the log says\n%s\nwant\n%s", what, g, w)
	}
}

func TestFloodIsALineEachWindowWithACountOfTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _, log := open()
		log = log.With("switch", "kvs0")
		flood := func() {
			for i := range 5000 {
				log.Info("port is down", "port", "vm1", "reason", fmt.Sprint("reason ", i))
				log.Info("port is up", "port", "vm1")
			}
		}
		flood()
		if n := len(k.take()); n != 2*Burst {
			t.Errorf("%d lines at once, want %d of each message", n, Burst)
		}
		log.Warn("guard holds port", "port", "vm1")
		log.Info("port is down", "port", "vm2")
		want(t, "what others cause, and another message", k.take(),
			"msg=\"guard holds port\" switch=kvs0 port=vm1", "msg=\"port is down\" switch=kvs0 port=vm2")
		time.Sleep(Window)
		synctest.Wait()
		last := []string{"msg=\"port is down\" switch=kvs0 port=vm1 reason=\"reason 4999\" left_out=4989",
			"msg=\"port is up\" switch=kvs0 port=vm1 left_out=4989"}
		want(t, "after a window", k.take(), last...)
		flood() // goes on: no further burst
		want(t, "the flood goes on", k.take())
		time.Sleep(Window)
		synctest.Wait()
		want(t, "after another window", k.take(), strings.ReplaceAll(last[0], "4989", "4999"), strings.ReplaceAll(last[1], "4989", "4999"))
		log.Info("port is up", "port", "vm1")
		time.Sleep(Window)
		synctest.Wait()
		want(t, "a single line of one who flooded", k.take(), "msg=\"port is up\" switch=kvs0 port=vm1")
		time.Sleep(2 * Window)
		log.Info("port is up", "port", "vm1")
		want(t, "after a quiet time", k.take(), "msg=\"port is up\" switch=kvs0 port=vm1")
	})
}

func TestCauseIsMessageAndSubjectNotWhatAnOutsiderChooses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, h, log := open()
		for i := range 1000 {
			log.Warn("helper is refused", "uid", 1000, "pid", i, "error", fmt.Sprint("number ", i))
		}
		for i := range 1000 { // an operator's reload is whole
			log.Info("reload", "step", fmt.Sprint("add port vm", i))
		}
		lines := k.take()
		if len(lines) != Burst+1000 {
			t.Errorf("%d lines, want %d and 1000", len(lines), Burst)
		}
		h.Flush() // as at the end of the program
		want(t, "at the end", k.take(), `msg="helper is refused" uid=1000 pid=999 error="number 999" left_out=989`)
		h.Flush()
		want(t, "and nothing twice", k.take())
		about := log.With("port", "vm1").WithGroup("g")
		for range 100 {
			about.Info("x")
			log.Debug("not enabled, and so not counted")
		}
		if n := len(k.take()); n != Burst {
			t.Errorf("%d lines of a logger with a subject, want %d", n, Burst)
		}
		log.Info("x", "port", "vm2")
		want(t, "another subject", k.take(), "msg=x port=vm2")
		h.Flush()
	})
}

func TestCausesWithoutNumberCostBoundedMemoryAndLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, h, log := open()
		for i := range 3 * maxCauses {
			log.Info("came", "port", fmt.Sprint("p", i))
		}
		if n := len(k.take()); n != maxCauses+Burst {
			t.Errorf("%d lines, want one for each of %d causes and %d more", n, maxCauses, Burst)
		}
		if n := len(h.causes); n != maxCauses+1 {
			t.Errorf("%d causes are remembered, want %d", n, maxCauses+1)
		}
		h.Flush()
		if n := len(h.causes); n != 1 {
			t.Errorf("%d causes after the flood, want the one that had lines held back", n)
		}
	})
}

func TestLineThatPassesAllocatesLittle(t *testing.T) {
	log := slog.New(New(slog.DiscardHandler))
	if n := testing.AllocsPerRun(100, func() { log.Info("x", "port", "vm1") }); n != 0 {
		t.Errorf("%v allocations for a line that nobody reads, want 0", n)
	}
}
