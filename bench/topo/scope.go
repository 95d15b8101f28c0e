package topo

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

var _ netns.TB = (*scope)(nil)

// scope is a netns.TB whose failures are errors and whose end is called for.
type scope struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	failures []error // since the last do
	failed   bool    // ever
	cleanups []func()
}

func newScope(ctx context.Context) *scope {
	ctx, cancel := context.WithCancel(ctx)
	return &scope{ctx: ctx, cancel: cancel}
}

// do runs f on a goroutine of its own, which Fatalf can end, and returns what
// failed in it.
func (s *scope) do(f func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errors.Join(s.failures...)
	s.failures = nil
	return err
}

// close runs the cleanups, last added first, and returns what failed in them.
func (s *scope) close() error {
	s.cancel()
	var errs []error
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		if n == 0 {
			s.mu.Unlock()
			return errors.Join(errs...)
		}
		last := s.cleanups[n-1]
		s.cleanups = s.cleanups[:n-1]
		s.mu.Unlock()
		errs = append(errs, s.do(last))
	}
}

func (s *scope) Helper()                  {}
func (s *scope) Name() string             { return "kvswitch bench" }
func (s *scope) Context() context.Context { return s.ctx }

// Logf is used by package netns only for the last words of processes when something
// has failed; they belong to the failure.
func (s *scope) Logf(format string, args ...any) { s.Errorf(format, args...) }

func (s *scope) Errorf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
	s.failures = append(s.failures, fmt.Errorf(format, args...))
}

func (s *scope) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}

func (s *scope) Skipf(format string, args ...any) { s.Fatalf(format, args...) }

func (s *scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *scope) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
