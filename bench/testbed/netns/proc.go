package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Proc is a process that a test started. It is killed when the test ends, and
// by the kernel when the test's process does.
type Proc struct {
	cmd  *exec.Cmd
	log  string // path; empty when the caller took the output
	done chan struct{}
	err  error // valid once done is closed
}

// Start runs cmd on the host. Standard output and error go to a file that Log
// reads, unless cmd says where.
func (h *Host) Start(cmd *exec.Cmd) *Proc {
	h.tb.Helper()
	return startLogged(h.tb, h.ns, cmd)
}

// Start runs cmd in the namespace of this process. It needs no privilege.
func Start(tb TB, cmd *exec.Cmd) *Proc {
	tb.Helper()
	return startLogged(tb, netns.None(), cmd)
}

func startLogged(tb TB, ns netns.NsHandle, cmd *exec.Cmd) *Proc {
	tb.Helper()
	log := ""
	if cmd.Stdout == nil && cmd.Stderr == nil {
		log = filepath.Join(Dir(tb), filepath.Base(cmd.Path)+".log")
		f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			tb.Fatalf("make log: %v", err)
		}
		defer f.Close()
		cmd.Stdout, cmd.Stderr = f, f
	}
	p, err := start(ns, cmd)
	if err != nil {
		tb.Fatalf("start %s: %v", cmd.Path, err)
	}
	p.log = log
	tb.Cleanup(func() {
		ended := p.ended()
		p.Kill()
		if said := lastLines(p.Log(), 40); tb.Failed() && said != "" {
			state := "still ran at the end"
			if ended {
				state = p.cmd.ProcessState.String()
			}
			tb.Logf("--- %s, process %d (%s), last lines:\n%s", filepath.Base(cmd.Path), p.Pid(), state, said)
		}
	})
	return p
}

// spawner is the one thread that starts processes. Pdeathsig means the death
// of the thread that forked, so that thread must live as long as the process.
var spawner = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

// startIn starts cmd in ns and leaves the calling thread where it was.
func startIn(ns netns.NsHandle, cmd *exec.Cmd) error {
	if !ns.IsOpen() {
		return cmd.Start()
	}
	own, err := netns.Get()
	if err != nil {
		return fmt.Errorf("get own namespace: %w", err)
	}
	defer own.Close()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	startErr := cmd.Start()
	if err := netns.Set(own); err != nil {
		// Every later child would be born in the wrong place, and giving up the
		// thread would kill those that live.
		panic(fmt.Sprintf("leave namespace: %v", err))
	}
	return startErr
}

// start runs cmd in ns, or where this process is when ns is closed.
func start(ns netns.NsHandle, cmd *exec.Cmd) (*Proc, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	cmd.SysProcAttr.Setpgid = true // Ctrl-C is for the test, which then ends its children in order
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = time.Second // a grandchild that keeps the output open is not waited for
	}
	started := make(chan error)
	spawner() <- func() { started <- startIn(ns, cmd) }
	if err := <-started; err != nil {
		return nil, err
	}
	p := &Proc{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid is the process id.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and Err is known.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Err waits for the process to end; it is nil for exit status 0, and otherwise
// an [*exec.ExitError] in most cases.
func (p *Proc) Err() error {
	<-p.done
	return p.err
}

func (p *Proc) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Signal sends sig. A process that has ended is no error.
func (p *Proc) Signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) }

// Kill ends the process and what it started with SIGKILL, and waits for it.
func (p *Proc) Kill() {
	if !p.ended() {
		_ = unix.Kill(-p.Pid(), unix.SIGKILL)
	}
	<-p.done
}

// Stop sends SIGTERM and returns how the process ended: nil means exit status
// 0. After grace it is killed, which is an error.
func (p *Proc) Stop(grace time.Duration) error {
	p.Signal(unix.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(grace):
		p.Kill()
		return fmt.Errorf("stop %s: still running %v after SIGTERM", filepath.Base(p.cmd.Path), grace)
	}
}

// Log is what the process has written to standard output and error so far.
func (p *Proc) Log() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

// CPU is the processor time that the threads of the process have used so far,
// as the scheduler counted it. What a thread used that has ended since is left
// out.
func (p *Proc) CPU() (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.Pid()))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("find threads of process %d: %d found, %w", p.Pid(), len(threads), err)
	}
	var sum time.Duration
	for _, t := range threads {
		b, err := os.ReadFile(t)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return 0, err
		}
		ran, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse %s: %w", t, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// Files says how many descriptors the process has open.
func (p *Proc) Files() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	return len(entries), err
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
