// Package netns builds small networks out of network namespaces, for tests and
// for the demonstration program: hosts, the cables between them, the processes
// that run on them, and raw access to their network devices.
//
// Everything is undone when the test ends, fails or is killed: namespaces and
// directories carry the process id in their name, a guard process removes them
// as soon as this process is gone, and every started process gets SIGKILL from
// the kernel at that moment.
//
// It never touches the namespace it was started in, and it never skips for any
// reason but missing privilege; with CI=true not even for that.
//
// A Lab and its Hosts may be used by any goroutine. As with [testing.TB], what
// can fail the test belongs on the test's own goroutine.
package netns

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// TB is the part of [testing.TB] that a lab needs. A program that is no test
// gets one from [Program].
type TB interface {
	Helper()
	Name() string
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
	Failed() bool
}

// Lab is one network. Its hosts disappear with the test that made it.
type Lab struct {
	tb  TB
	dir string
}

// prefix starts the name of everything that outlives a thread of this process:
// the id tells later runs whether the owner still lives.
const prefix = "kvs-"

// serial tells the labs and directories of one process apart.
var serial atomic.Int64

func uniqueName() string { return fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), serial.Add(1)) }

// New starts an empty network. It skips the test if the process may not create
// network namespaces.
func New(tb TB) *Lab {
	tb.Helper()
	RequirePrivilege(tb)
	return &Lab{tb: tb, dir: Dir(tb)}
}

// Dir is a directory of the lab's own, with a path short enough for sockets.
func (l *Lab) Dir() string { return l.dir }

// Dir makes a directory that is removed when the test ends, and also when the
// process is killed. Its path is short enough for unix sockets.
func Dir(tb TB) string {
	tb.Helper()
	if err := guard(); err != nil {
		tb.Fatalf("start guard: %v", err)
	}
	dir := filepath.Join(os.TempDir(), uniqueName())
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatalf("make lab directory: %v", err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("remove lab directory: %v", err)
		}
	})
	return dir
}

// RequirePrivilege skips the test if the process may not create namespaces and
// configure networks, and fails it if CI=true, where nothing may be skipped.
func RequirePrivilege(tb TB) {
	tb.Helper()
	Need(tb, "network namespaces", privilege())
}

// Need skips the test if err says that something it needs is missing, and fails
// it if CI=true.
func Need(tb TB, what string, err error) {
	tb.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		tb.Fatalf("%s: %v, and CI=true forbids skipping", what, err)
	default:
		tb.Skipf("%s: %v", what, err)
	}
}

// privilege says what this process lacks to build a lab: CAP_NET_ADMIN for
// links, CAP_NET_RAW for raw sockets, CAP_SYS_ADMIN for namespaces.
func privilege() error {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		v, ok := strings.CutPrefix(s.Text(), "CapEff:")
		if !ok {
			continue
		}
		caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		if err != nil {
			return fmt.Errorf("read capabilities: %w", err)
		}
		const need = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_ADMIN
		if caps&need != need {
			return fmt.Errorf("need root (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN), have capabilities %#x", caps)
		}
		return nil
	}
	return fmt.Errorf("read capabilities: no CapEff in /proc/self/status")
}

// Await calls ok every few milliseconds until it returns nil, and fails the
// test with its last error after d. It is how tests wait: for a condition,
// never for a time.
func Await(tb TB, d time.Duration, what string, ok func() error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), d)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			tb.Fatalf("%s: not within %v: %v", what, d, err)
		case <-time.After(pause):
		}
	}
}
