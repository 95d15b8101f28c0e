package sink

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/kvswitch/kvswitch/bench/probe"
)

// Offsets in struct __sk_buff, linux/bpf.h.
const (
	skbLen     = 0
	skbData    = 76
	skbDataEnd = 80
	skbGSOSegs = 164
)

// Verdict of the program: the frame is counted and goes no further up the
// receiver's stack. TC_ACT_SHOT, linux/pkt_cls.h.
const shot = 2

// Counts is what the program counts at one port. Its fields are the map's value
// in order, one per CPU.
type Counts struct {
	Frames   uint64 // probes that belong here, or to a group
	Bytes    uint64 // of those, without frame check sequence
	Segments uint64 // of those, as they would be on a wire
	Foreign  uint64 // anything that no Station sent
	Astray   uint64 // probes to a station of another port: flooded, or misdelivered
	Late     uint64 // probes with a lower sequence number than one before them
}

// Offsets of the fields of Counts in the map's value.
const (
	countFrames = 8 * iota
	countBytes
	countSegments
	countForeign
	countAstray
	countLate
	countNext
	countSize
)

// counting assembles the program for one port. Written out, it is:
//
//	if the frame is shorter than a probe: drop
//	c = &counts[port]
//	if the source is no station:            c.foreign++, drop
//	if the destination is another port's:   c.astray++,  drop
//	c.frames++, c.bytes += skb.len, c.segments += max(1, skb.gso_segs)
//	if the mark is not there:               drop        (a later segment of a super-frame)
//	if seq < c.next: c.late++, else c.next = seq + 1
//	if the time stamp is not 0: latencies[bucket(now - time stamp)]++
//	drop
//
// The maps are per CPU and the program runs in softirq, so plain increments do.
func counting(counts, latencies *ebpf.Map, port int, gso bool) asm.Instructions {
	at := int16(probe.StampOffset(gso))
	need := int32(at) + 18
	const (
		ctx   = asm.R6
		data  = asm.R7
		count = asm.R8
		tmp   = asm.R9
	)
	load := func() asm.Instructions { // data and its end, and whether need bytes lie there
		return asm.Instructions{
			asm.LoadMem(data, ctx, skbData, asm.Word),
			asm.LoadMem(asm.R2, ctx, skbDataEnd, asm.Word),
			asm.Mov.Reg(asm.R3, data),
			asm.Add.Imm(asm.R3, need),
		}
	}
	add := func(off int16) asm.Instructions { // count[off] += R1
		return asm.Instructions{
			asm.LoadMem(asm.R2, count, off, asm.DWord),
			asm.Add.Reg(asm.R2, asm.R1),
			asm.StoreMem(count, off, asm.R2, asm.DWord),
		}
	}
	lookup := func(m *ebpf.Map, key int32) asm.Instructions { // R0 = &m[key], never nil
		return asm.Instructions{
			asm.StoreImm(asm.RFP, -4, int64(key), asm.Word),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "drop"),
		}
	}
	// The address prefix of a station and the mark, as a little-endian load of
	// the first two bytes sees them.
	s := probe.Station(0, 0)
	station := int32(s[0]) | int32(s[1])<<8
	const mark = int32(probe.Mark>>8 | probe.Mark&0xff<<8)

	var p asm.Instructions
	emit := func(blocks ...asm.Instructions) {
		for _, b := range blocks {
			p = append(p, b...)
		}
	}
	emit(
		asm.Instructions{asm.Mov.Reg(ctx, asm.R1)},
		load(),
		asm.Instructions{
			asm.JLE.Reg(asm.R3, asm.R2, "whole"),
			// The start may lie outside the linear part.
			asm.Mov.Reg(asm.R1, ctx),
			asm.Mov.Imm(asm.R2, need),
			asm.FnSkbPullData.Call(),
		},
		load(),
		asm.Instructions{asm.JGT.Reg(asm.R3, asm.R2, "drop")},
		label("whole", lookup(counts, int32(port))),
		asm.Instructions{
			asm.Mov.Reg(count, asm.R0),

			asm.LoadMem(asm.R1, data, 6, asm.Half),
			asm.JEq.Imm(asm.R1, station, "known"),
			asm.Mov.Imm(asm.R1, 1),
		},
		add(countForeign),
		asm.Instructions{
			asm.Ja.Label("drop"),

			asm.LoadMem(asm.R1, data, 0, asm.Half).WithSymbol("known"),
			asm.JNE.Imm(asm.R1, station, "mine"), // a group address
			asm.LoadMem(asm.R1, data, 2, asm.Byte),
			asm.JEq.Imm(asm.R1, int32(port), "mine"),
			asm.Mov.Imm(asm.R1, 1),
		},
		add(countAstray),
		asm.Instructions{
			asm.Ja.Label("drop"),
			asm.Mov.Imm(asm.R1, 1).WithSymbol("mine"),
		},
		add(countFrames),
		asm.Instructions{asm.LoadMem(asm.R1, ctx, skbLen, asm.Word)},
		add(countBytes),
		asm.Instructions{
			asm.LoadMem(asm.R1, ctx, skbGSOSegs, asm.Word),
			asm.JNE.Imm(asm.R1, 0, "segmented"),
			asm.Mov.Imm(asm.R1, 1),
		},
		label("segmented", add(countSegments)),
		asm.Instructions{
			asm.LoadMem(asm.R1, data, at, asm.Half),
			asm.JNE.Imm(asm.R1, mark, "drop"),

			asm.LoadMem(tmp, data, at+2, asm.Word),
			asm.HostTo(asm.BE, tmp, asm.Word),
			asm.LoadMem(asm.R2, count, countNext, asm.DWord),
			asm.JGE.Reg(tmp, asm.R2, "onward"),
			asm.Mov.Imm(asm.R1, 1),
		},
		add(countLate),
		asm.Instructions{
			asm.Ja.Label("timing"),
			asm.Add.Imm(tmp, 1).WithSymbol("onward"),
			asm.StoreMem(count, countNext, tmp, asm.DWord),

			asm.LoadMem(tmp, data, at+6, asm.DWord).WithSymbol("timing"),
			asm.HostTo(asm.BE, tmp, asm.DWord),
			asm.JEq.Imm(tmp, 0, "drop"),
			asm.FnKtimeGetNs.Call(),
			asm.JGE.Reg(asm.R0, tmp, "elapsed"),
			asm.Mov.Reg(tmp, asm.R0), // clocks of two CPUs: less than nothing is nothing
			asm.Sub.Reg(asm.R0, tmp).WithSymbol("elapsed"),
			asm.Mov.Reg(tmp, asm.R0),
		},
		sort(tmp),
		lookup(latencies, 0),
		asm.Instructions{
			asm.JGE.Imm(tmp, buckets, "drop"), // for the verifier: sort sees to it
			asm.LSh.Imm(tmp, 3),
			asm.Add.Reg(asm.R0, tmp),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),

			asm.Mov.Imm(asm.R0, shot).WithSymbol("drop"),
			asm.Return(),
		},
	)
	return p
}

// sort replaces nanoseconds in ns by their bucket; see bucket. It uses R1–R3.
func sort(ns asm.Register) asm.Instructions {
	p := asm.Instructions{
		asm.JLT.Imm(ns, subBuckets, "sorted"),
		asm.Mov.Reg(asm.R1, ns),
		asm.Mov.Imm(asm.R2, 0), // becomes the highest bit's number
		asm.Mov.Reg(asm.R3, asm.R1),
		asm.RSh.Imm(asm.R3, 32),
		asm.JEq.Imm(asm.R3, 0, "below32"),
		asm.Mov.Reg(asm.R1, asm.R3),
		asm.Add.Imm(asm.R2, 32),
	}
	next := "below32"
	for _, step := range []struct {
		bits  int32
		label string
	}{{16, "below16"}, {8, "below8"}, {4, "below4"}, {2, "below2"}, {1, "below1"}} {
		p = append(p,
			asm.JLT.Imm(asm.R1, 1<<step.bits, step.label).WithSymbol(next),
			asm.RSh.Imm(asm.R1, step.bits),
			asm.Add.Imm(asm.R2, step.bits),
		)
		next = step.label
	}
	return append(p,
		asm.Sub.Imm(asm.R2, subBits).WithSymbol(next), // R2 = shift
		asm.RSh.Reg(ns, asm.R2),
		asm.And.Imm(ns, subBuckets-1),
		asm.Add.Imm(asm.R2, 1),
		asm.LSh.Imm(asm.R2, subBits),
		asm.Or.Reg(ns, asm.R2),
		asm.JLT.Imm(ns, buckets, "sorted"),
		asm.Mov.Imm(ns, buckets-1),
		asm.Mov.Reg(ns, ns).WithSymbol("sorted"),
	)
}

// label names the first instruction of a block.
func label(name string, p asm.Instructions) asm.Instructions {
	p[0] = p[0].WithSymbol(name)
	return p
}
