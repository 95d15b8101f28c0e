package guest

import (
	"encoding/binary"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvswitch/kvswitch/bench/gen"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/sink"
	"github.com/kvswitch/kvswitch/switch/frame"
)

// tally counts received frames as sink's program in the kernel does.
type tally struct {
	port      int
	counts    sink.Counts
	next      uint64 // highest sequence number seen, plus one
	latencies *hdrhistogram.Histogram
	clock     gen.Clock
	ledger    *sink.Ledger // gets every frame, if not nil
}

// count takes one frame. A zero tally counts, but takes no latencies.
func (t *tally) count(b []byte) {
	if t.ledger != nil {
		t.ledger.Enter(b)
	}
	if len(b) < probe.MinLen {
		return
	}
	if _, _, station := probe.IsStation(frame.MAC(b[6:12])); !station {
		t.counts.Foreign++
		return
	}
	if port, _, station := probe.IsStation(frame.MAC(b[:6])); station && port != t.port {
		t.counts.Astray++
		return
	}
	t.counts.Frames++
	t.counts.Segments++
	t.counts.Bytes += uint64(len(b))
	at := probe.StampOffset(false)
	if binary.BigEndian.Uint16(b[at:]) != probe.Mark {
		return
	}
	if seq := uint64(binary.BigEndian.Uint32(b[at+2:])); seq < t.next {
		t.counts.Late++
	} else {
		t.next = seq + 1
	}
	sent := int64(binary.BigEndian.Uint64(b[at+6:]))
	if sent == 0 || t.latencies == nil {
		return
	}
	// A latency beyond the histogram's range is two minutes or more: not of
	// this trial.
	_ = t.latencies.RecordValue(max(0, t.clock.Now()-sent))
}
