package netdev

import (
	"errors"
	"strings"
	"sync/atomic"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// errTierOff says why a port's program doesn't forward: nobody asked for it.
var errTierOff = errors.New("turned off")

// Target implements frame.Redirector.
func (p *Port) Target() frame.Target { return *p.target.Load() }

// findTarget is what Target says from now on.
func (p *Port) findTarget() *frame.Target {
	switch a := p.at; {
	case a == nil:
		return &frame.Target{Why: p.reason}
	case a.noTier != nil:
		why, _, _ := strings.Cut(a.noTier.Error(), "\n") // the verifier says more
		return &frame.Target{Why: why}
	default:
		return &frame.Target{Index: a.index}
	}
}

// Bind implements frame.Redirector.
func (p *Port) Bind(number int) {
	p.number.Store(uint32(number + 1))
	p.watcher.Do(func() {
		if p.at != nil {
			p.bindIntakes(p.at)
		}
	})
}

// bindIntakes tells the program that fills a's intakes the port's number.
func (p *Port) bindIntakes(a *attachment) {
	for _, r := range a.intakes {
		atomic.StoreUint32(&r.shared.Port, p.number.Load())
	}
}
