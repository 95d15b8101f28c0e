package netns

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
)

// Program runs f as a test would be run, for programs that are none: f gets a
// TB whose Fatalf ends it and whose cleanups run before Program returns. SIGINT
// and SIGTERM cancel the TB's context, on which everything in this package that
// waits gives up. What is logged goes to w. It returns an error if f failed or
// was interrupted.
func Program(name string, w io.Writer, f func(TB)) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	inner, cancel := context.WithCancel(ctx)
	p := &program{name: name, w: w, ctx: inner}
	p.wait(func() { f(p) })
	interrupted := ctx.Err() != nil
	p.mute(interrupted)
	stop() // a second Ctrl-C during cleanup ends the process at once; the guard does the rest
	cancel()
	for len(p.cleanups) > 0 {
		last := p.cleanups[len(p.cleanups)-1]
		p.cleanups = p.cleanups[:len(p.cleanups)-1]
		p.wait(last)
	}
	switch {
	case interrupted:
		return fmt.Errorf("%s: interrupted", name)
	case p.Failed():
		return fmt.Errorf("%s: failed", name)
	}
	return nil
}

// program is the TB of a program.
type program struct {
	name     string
	w        io.Writer
	ctx      context.Context
	mu       sync.Mutex
	failed   bool
	muted    bool // interrupted: whatever fails now fails for that
	cleanups []func()
}

// wait runs f on a goroutine of its own, so that Fatalf can end just that.
func (p *program) wait(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func (p *program) Helper()                  {}
func (p *program) Name() string             { return p.name }
func (p *program) Context() context.Context { return p.ctx }

func (p *program) Logf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.muted {
		fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *program) mute(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.muted = on
}

func (p *program) Errorf(format string, args ...any) {
	p.Logf(format, args...)
	p.mu.Lock()
	p.failed = true
	p.mu.Unlock()
}

func (p *program) Fatalf(format string, args ...any) {
	p.Errorf(format, args...)
	runtime.Goexit()
}

// Skipf fails: a program that can't do its work has no other way to say so.
func (p *program) Skipf(format string, args ...any) { p.Fatalf(format, args...) }

func (p *program) Cleanup(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, f)
}

func (p *program) Failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed && !p.muted
}
