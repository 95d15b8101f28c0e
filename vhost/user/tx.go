package vhostuser

import (
	"fmt"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/vhost/virtq"
)

// lockTries is how often Tx tries for a ring that another worker is sending on,
// some 10 µs, a few times what a batch takes. Then the batch is dropped: the
// other worker was probably put off the processor.
const lockTries = 4000

// Tx implements frame.Port. Which ring a frame goes to is the guest's choice, not
// the worker's.
func (p *Port) Tx(_ int, out []frame.Out) int {
	rings := p.egress.Load()
	if rings == nil {
		return 0
	}
	if len(*rings) > 1 {
		return p.spread(*rings, out)
	}
	return (*rings)[0].trySend(out)
}

// trySend copies frames into the guest's buffers, unless another worker is
// sending by this ring for longer than lockTries.
func (r *ring) trySend(out []frame.Out) (sent int) {
	for try := 0; !r.mu.TryLock(); try++ {
		if try == lockTries {
			return 0
		}
	}
	defer r.mu.Unlock()
	l := r.live.Load()
	if l == nil || !l.enabled {
		return 0
	}
	defer r.sendRecovered(l, guard())
	return r.send(l, out)
}

// maxWork is how many batches' worth of descriptors a guest may have read for one
// batch of frames: bad chains cost it frames, not others time.
const maxWork = 4

// send fills chains in rounds, as many as there are frames, until either runs
// out. It reports how many frames it took care of.
func (r *ring) send(l *live, out []frame.Out) (sent int) {
	for work := 0; sent < len(out) && work < maxWork*r.batch.Work(); {
		if n, err := l.Take(r.batch, len(out)-sent); err != nil {
			r.fail(err, false)
			break
		} else if n == 0 {
			break
		}
		done, more := r.fill(l, out[sent:])
		work += r.batch.Walked()
		l.Return(r.batch)
		if sent += done; !more {
			break
		}
	}
	if sent > 0 {
		r.frames.Add(uint64(sent))
		r.notify(l)
	}
	return sent
}

// fill copies frames into the chains of the batch and leaves in it those that
// are to be returned. It reports how many frames it took care of, and whether
// another round may take care of more.
func (r *ring) fill(l *live, out []frame.Out) (done int, more bool) {
	hdrLen := l.hdrLen
	chains := r.batch.Chains
	next := 0
	for i := range out {
		if next == len(chains) {
			return i, true
		}
		o, c := &out[i], &chains[next]
		f := o.Frame
		src, dst := f.Data, c.First
		if c.Single() && uint32(o.EgressTag)|uint32(f.Strip) == 0 && len(f.Rest) == 0 &&
			f.Hdr.Flags|f.Hdr.GSOType == 0 && len(dst) >= hdrLen+len(src) {
			putPlainHeader(dst, hdrLen)
			virtq.Copy(dst[hdrLen:], src)
			if o.Header != nil {
				o.Header.Put(dst[hdrLen:])
			}
			c.Written = uint32(hdrLen + len(src))
			next++
			continue
		}
		used, ok := r.place(l, o, next)
		if chains = r.batch.Chains; !ok {
			l.Rewind(r.batch, len(chains)-next)
			return i, next > 0
		}
		next += used
	}
	l.Rewind(r.batch, len(chains)-next)
	return len(out), false
}

// sendRecovered is deferred while the ring is locked. A fault in this guest's
// memory, or in what else its front end shares, stops its ring. One elsewhere is
// in the memory of whoever lent the frames: nothing was published, and the caller
// gets the panic if it was ready for it before.
func (r *ring) sendRecovered(l *live, before bool) {
	unguard(before)
	fault := frame.FaultOf(recover())
	switch {
	case fault == nil:
	case l.Holds(fault.Addr()):
		r.fail(fmt.Errorf("guest memory can't be written: %w", fault), true)
	default:
		l.Rewind(r.batch, len(r.batch.Chains))
		if before {
			panic(fault)
		}
	}
}
