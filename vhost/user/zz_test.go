package vhostuser

import (
	"os"
	"runtime"
	"testing"
	"time"
	"fmt"
	"golang.org/x/sys/unix"
)

func TestZZ(t *testing.T) {
	if os.Getenv("ZZ") == "" { t.Skip() }
	os.MkdirAll("/tmp/tp", 0o755)
	os.Remove("/tmp/tp/a"); os.Remove("/tmp/tp/b")
	a := openPort(t, Options{Path: "/tmp/tp/a"})
	b := openPort(t, Options{Path: "/tmp/tp/b"})
	runtime.LockOSThread()
	os.WriteFile("/tmp/tp/tid", []byte(fmt.Sprint(unix.Gettid())), 0o644)
	var set unix.CPUSet
	set.Set(1)
	unix.SchedSetaffinity(0, &set)
	l := []*lane{{from: a.queues[0], to: b}, {from: b.queues[0], to: a}}
	end := time.Now().Add(20*time.Second)
	last := time.Now()
	n, turns := 0, 0
	was := false
	idle := 0
	for {
		k := l[0].turn() + l[1].turn()
		n += k
		if k > 0 { turns++ } else { idle++ }
		if (k == 0 && idle & 0xff == 0) || turns & 0xfff == 0 {
			now := time.Now()
			if now.After(end) { break }
			if up := a.State().Up; up { was = true } else if was { break }
			if d := now.Sub(last); d > time.Second {
				fmt.Printf("%.2f M/s, %.1f per turn, %d idle/%d turns, %v %v %+v %+v\n", float64(n)/d.Seconds()/1e6, float64(n)/float64(turns+1), idle, turns, a.State().Up, a.State().Reason, a.Counters(), b.Counters())
				n, last, turns = 0, now, 0; idle=0
			}
		}
	}
	d := a.Detail().(Detail)
	fmt.Printf("%+v\n", d)
}
