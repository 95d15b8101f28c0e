package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/testbed/vm/wire"
)

// serve answers requests until the stream breaks in the middle of a message.
func serve(port *os.File) error {
	conn := wire.NewConn(patient{port})
	children := newChildren()
	if err := conn.Write(wire.Reply{}); err != nil {
		return err
	}
	for {
		var req wire.Request
		if err := conn.Read(&req); err != nil {
			return err
		}
		if req.Op == wire.OpKill {
			children.kill(req.Target)
			continue
		}
		go func() {
			reply, err := children.do(req)
			reply.ID = req.ID
			if err != nil {
				reply.Error = err.Error()
			}
			if err := conn.Write(reply); err != nil {
				fmt.Fprintln(os.Stderr, "agent: answer:", err)
			}
		}()
	}
}

// patient is a virtio-serial port whose host side may be away for a while:
// between two connections it reads as ended.
type patient struct{ *os.File }

func (p patient) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || err != io.EOF {
			return n, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// children runs commands and reaps every process that ends, also those that
// were left behind by others: that is process 1's duty, and it excludes
// waiting for each child by itself.
type children struct {
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus // by process id
	pids    map[uint64]int                  // by request
}

func newChildren() *children {
	c := &children{waiting: map[int]chan syscall.WaitStatus{}, pids: map[uint64]int{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		for range ended {
			c.reap()
		}
	}()
	return c
}

// reap collects every child that has ended. The lock keeps it from a child that
// start has not made known yet.
func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err != nil || pid <= 0 {
			return
		}
		if ended, ours := c.waiting[pid]; ours {
			ended <- status
			delete(c.waiting, pid)
		}
	}
}

func (c *children) do(req wire.Request) (wire.Reply, error) {
	switch req.Op {
	case wire.OpRun:
		return c.run(req)
	case wire.OpPut:
		return wire.Reply{}, os.WriteFile(req.Path, req.Data, os.FileMode(req.Mode))
	case wire.OpGet:
		data, err := os.ReadFile(req.Path)
		return wire.Reply{Data: data}, err
	}
	return wire.Reply{}, fmt.Errorf("unknown operation %q", req.Op)
}

// run answers when the shell has ended, whatever it left in the background.
// Output goes to a file in memory, because the end of a pipe would be the end
// of the last process that holds it.
func (c *children) run(req wire.Request) (wire.Reply, error) {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return wire.Reply{}, err
	}
	out := os.NewFile(uintptr(fd), "output")
	defer out.Close()
	ended, err := c.start(req, out)
	if err != nil {
		return wire.Reply{}, err
	}
	status := <-ended
	c.mu.Lock()
	delete(c.pids, req.ID)
	c.mu.Unlock()
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	data, err := io.ReadAll(io.NewSectionReader(out, 0, wire.MaxMessage/2))
	return wire.Reply{Data: data, Code: code}, err
}

// start runs the command in a process group of its own.
func (c *children) start(req wire.Request, out *os.File) (<-chan syscall.WaitStatus, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", req.Command}, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	c.waiting[pid] = ended
	c.pids[req.ID] = pid
	return ended, nil
}

// kill ends a run and what it started, unless it has ended by itself.
func (c *children) kill(request uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pid, runs := c.pids[request]; runs && c.waiting[pid] != nil {
		if err := unix.Kill(-pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			fmt.Fprintln(os.Stderr, "agent: kill:", err)
		}
	}
}
