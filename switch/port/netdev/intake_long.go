package netdev

import (
	"sync/atomic"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// longFrame is a frame beyond frame.MaxLen, TCP of devices with a raised
// gso_max_size or gro_max_size, while its parts are lent.
type longFrame struct {
	frame.Split
	pieces [][]byte
	heads  [frame.BatchSize][frame.MaxSplitHead]byte
	rests  [frame.BatchSize][][]byte
}

// intakePiece is how the program copies such a frame: in pieces of so many bytes,
// each at its place in the ring.
const intakePiece = 32 << 10

// receiveLong lends parts of the frame of that length that is next, whose header
// and tag are those of b[0], until there are no more or b is full. So many frames
// are lent already. One that can't be split is bad.
func (r *intake) receiveLong(b []frame.Frame, lent, length int, bad *atomic.Uint64) (n int) {
	if r.long == nil {
		r.long = new(longFrame)
	}
	l := r.long
	if !l.More() {
		l.pieces = l.pieces[:0]
		for from := 0; from < length; from += intakePiece {
			at := r.data[(int(r.units)<<intakeUnitShift+from)&r.last()+intakeExtra:]
			l.pieces = append(l.pieces, at[:min(intakePiece, length-from)])
		}
		whole := b[0]
		whole.Data, whole.Rest = l.pieces[0], l.pieces[1:]
		if frame.InTunnel(whole.Data, whole.Hdr) || l.Begin(&whole) != nil {
			bad.Add(1)
			return 0
		}
	}
	for n < len(b) && l.More() {
		i := lent + n
		if i >= len(l.heads) {
			break // those are lent, until release
		}
		l.Next(&b[n], l.heads[i][:], l.rests[i])
		l.rests[i] = b[n].Rest
		n++
	}
	return n
}
