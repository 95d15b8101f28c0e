package vswitch

import "fmt"

// Close ends a switch that never ran: it closes every port, and calls that add
// some fail with ErrClosed from then on. Of a switch that has ended, it is
// without effect; one that runs is ended by the context of Run, and Close an
// error that changes nothing.
func (s *Switch) Close() error {
	s.mu.Lock()
	running, name := s.workers != nil, s.cfg.Name
	if !running {
		s.closed = true // Run refuses from here on
	}
	s.mu.Unlock()
	if running {
		return fmt.Errorf("close switch %s: it runs: end the context that Run was given", name)
	}
	s.shutdown()
	return nil
}
