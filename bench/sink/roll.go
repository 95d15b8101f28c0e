package sink

import (
	"context"
	"sync"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// Roll is a roll call: which of a port's stations a frame was seen for. It is
// pure; one goroutine uses it.
type Roll struct {
	port  int
	heard []bool
}

// NewRoll calls the stations below limit of a port.
func NewRoll(port, limit int) *Roll { return &Roll{port: port, heard: make([]bool, limit)} }

// Enter files one received frame.
func (r *Roll) Enter(b []byte) {
	if len(b) < probe.MinLen {
		return
	}
	if _, _, ok := probe.IsStation(frame.MAC(b[6:12])); !ok {
		return
	}
	port, station, ok := probe.IsStation(frame.MAC(b[:6]))
	if ok && port == r.port && station < len(r.heard) {
		r.heard[station] = true
	}
}

// Heard reports a station that a frame was seen for.
func (r *Roll) Heard(station int) bool { return r.heard[station] }

// Account is what received frames are entered into: a Ledger or a Roll.
type Account interface{ Enter(frame []byte) }

// Watch enters into l what arrives at the port while send runs and until nothing
// comes any more.
func (a *Auditor) Watch(ctx context.Context, l Account, send func() error) error {
	_, err := a.watch(ctx, l, send)
	return err
}

func (a *Auditor) watch(ctx context.Context, l Account, send func() error) (missed uint64, err error) {
	stop := make(chan struct{})
	var receiver sync.WaitGroup
	var receiveErr error
	receiver.Go(func() { missed, receiveErr = a.Receive(ctx, l, stop) })
	err = send()
	close(stop)
	receiver.Wait()
	if err == nil {
		err = receiveErr
	}
	return missed, err
}
