package netdev

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// The program that fills intakes. Written out, for a frame skb of len bytes:
//
//	if len can't be a frame's: bad++, end
//	r = intakes[hash(skb) % number]                the flow's, if there are several
//	do:                                            a few times at most
//		h = r.head, n = h after this frame
//		if n is not within the rings' sizes of r.seen:
//			r.seen = r.tail
//			if it still isn't: lost++, end
//	until compare-and-swap(r.head, h, n)
//	d = r.data[h.units]
//	if tagged, checksum unfinished, or to be segmented:
//		*d = offload header and tag, d += intakeExtra
//	copy skb to d
//	publish: exchange(r.entries[h.frames], h.frames + 1 | len | marks)
//	if r.bell and exchange(r.bell, 0): ring it
//	end: drop, but let untagged 802.2 pass, as the plain shield does
//
// publish is an exchange because it orders what comes before and after: the
// frame's bytes before the entry, and the entry before the look at the bell,
// which makes that no wake-up is lost.

// Registers that live as long as the frame's way through the program does.
const (
	regCtx   = asm.R6
	regHead  = asm.R7 // h
	regEntry = asm.R8 // len and marks
	regSKB   = asm.R9
)

// Its places on the stack.
const (
	stackIntake = -8  // r
	stackData   = -16 // d
	stackBell   = -24 // what is rung
	stackWhich  = -32 // number of r
)

// Further offsets in struct __sk_buff.
const (
	skbLen       = 0
	skbVLANTCI   = 24
	skbVLANProto = 28 // in network byte order
	skbGSOSize   = 176
)

const (
	// intakeTries is how often the program competes with other processors for
	// the same room before it gives the frame up.
	intakeTries = 8
	// ringForced is BPF_RB_FORCE_WAKEUP.
	ringForced = 2
	// gsoUnknown is a type that no port offers, for one that the offload header
	// has no word for: the switch drops the frame by that.
	gsoUnknown = 0x7f
	// intakeLicense: the kernel's functions may be called by programs under the
	// GPL only, so these instructions are under that licence as well.
	intakeLicense = "Dual MIT/GPL"
)

// intakeProgram makes the program that fills these intakes, all of size s.
func intakeProgram(intakes []*intake, s intakeSize) (*ebpf.Program, error) {
	l, err := theSKB()
	if err != nil {
		return nil, err
	}
	_ = rlimit.RemoveMemlock()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: shieldName, Type: ebpf.SchedCLS, License: intakeLicense, Instructions: (&assembler{l, s, intakes}).program(),
	})
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("load BPF program: %w", unix.EPERM)
	}
	if err != nil {
		return nil, fmt.Errorf("load BPF program: %w", err)
	}
	return program, nil
}

// IntakeAvailable reports why this process can't receive by intakes, or nil.
func IntakeAvailable() error {
	size := sizeOfIntake(2 * blockSize)
	r, err := newIntake(size)
	if err != nil {
		return err
	}
	defer r.free()
	program, err := intakeProgram([]*intake{r}, size)
	if err != nil {
		return err
	}
	return program.Close()
}

// assembler writes the program, part by part.
type assembler struct {
	skb     *skbLayout
	size    intakeSize
	intakes []*intake
}

func (a *assembler) program() (p asm.Instructions) {
	for _, part := range []func() asm.Instructions{
		a.begin, a.choose, a.look, a.reserve, a.place, a.extra, a.copy, a.publish, a.wake, a.end,
	} {
		p = append(p, part()...)
	}
	return p
}

func (a *assembler) begin() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(regCtx, asm.R1),
		callKfunc(a.skb.castToSKB),
		asm.Mov.Reg(regSKB, asm.R0),
	}
}

// choose finds r.
func (a *assembler) choose() (p asm.Instructions) {
	if len(a.intakes) > 1 {
		p = append(p,
			asm.Mov.Reg(asm.R1, regCtx),
			asm.FnGetHashRecalc.Call(),
			asm.Mod.Imm32(asm.R0, int32(len(a.intakes))),
			asm.StoreMem(asm.RFP, stackWhich, asm.R0, asm.DWord),
		)
	}
	for i, r := range a.intakes {
		next := fmt.Sprint("choose", i+1)
		at := asm.LoadMapValue(asm.R5, r.memory.FD(), 0)
		switch last := i == len(a.intakes)-1; {
		case last && i == 0:
			p = append(p, at)
		case last:
			p = append(p, at.WithSymbol(fmt.Sprint("choose", i)))
		default:
			test := asm.JNE.Imm(asm.R0, int32(i), next)
			if i > 0 {
				test = test.WithSymbol(fmt.Sprint("choose", i))
			}
			p = append(p, test, at, asm.Ja.Label("chosen"))
		}
	}
	return append(p, asm.StoreMem(asm.RFP, stackIntake, asm.R5, asm.DWord).WithSymbol("chosen"))
}

// look finds out length and marks, and how many units the frame takes, into R3.
func (a *assembler) look() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(regEntry, regCtx, skbLen, asm.Word),
		asm.JGT.Imm(regEntry, frame.MaxLen, "bad"),
		asm.JLT.Imm(regEntry, frame.HeaderLen, "bad"),
		asm.Mov.Reg(asm.R3, regEntry),

		asm.LoadMem(asm.R1, regSKB, a.skb.summed, asm.Byte),
		asm.RSh.Imm(asm.R1, a.skb.summedShift),
		asm.And.Imm(asm.R1, 3),
		asm.JEq.Imm(asm.R1, checksumPartial, "remarkable"),
		asm.LoadMem(asm.R2, regCtx, skbVLANPresent, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "remarkable"),
		asm.LoadMem(asm.R2, regCtx, skbGSOSize, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "remarkable"),
		asm.JNE.Imm(asm.R1, checksumUnnecessary, "plain"),
		asm.Or.Imm(regEntry, entryValid),
		asm.Ja.Label("plain"),
		asm.Or.Imm(regEntry, entryExtra).WithSymbol("remarkable"),
		asm.Add.Imm(asm.R3, intakeExtra),
		asm.Add.Imm(asm.R3, intakeUnit-1).WithSymbol("plain"),
		asm.RSh.Imm(asm.R3, intakeUnitShift),
	}
}

// reserve takes the frame's place in both rings, of the intake R5, or gives the
// frame up.
func (a *assembler) reserve() (p asm.Instructions) {
	for try := range intakeTries {
		room := fmt.Sprint("room", try)
		again := fmt.Sprint("again", try)
		p = append(p,
			asm.LoadMem(regHead, asm.R5, offHead, asm.DWord),
			asm.LoadMem(asm.R0, asm.R5, offSeen, asm.DWord),
		)
		p = append(p, a.within(again)...)
		p = append(p,
			asm.Ja.Label(room),
			asm.LoadMem(asm.R0, asm.R5, offTail, asm.DWord).WithSymbol(again),
			asm.StoreMem(asm.R5, offSeen, asm.R0, asm.DWord),
		)
		p = append(p, a.within("full")...)
		p = append(p,
			asm.Mov.Reg(asm.R4, regHead).WithSymbol(room), // becomes n
			asm.RSh.Imm(asm.R4, 32),
			asm.Add.Imm(asm.R4, 1),
			asm.LSh.Imm(asm.R4, 32),
			asm.Mov.Reg32(asm.R2, regHead),
			asm.Add.Reg32(asm.R2, asm.R3),
			asm.Or.Reg(asm.R4, asm.R2),
			asm.Mov.Reg(asm.R0, regHead),
			atomically(asm.CmpXchg, asm.R5, offHead, asm.R4),
			asm.JEq.Reg(asm.R0, regHead, "reserved"),
		)
	}
	return append(p, asm.Ja.Label("full"))
}

// within goes to the label otherwise unless R3 more units and one more frame
// than at regHead are within the rings' sizes of the position R0.
func (a *assembler) within(otherwise string) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regHead),
		asm.RSh.Imm(asm.R1, 32),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.RSh.Imm(asm.R2, 32),
		asm.Sub.Reg32(asm.R1, asm.R2),
		asm.JGE.Imm32(asm.R1, int32(a.size.entries), otherwise),
		asm.Mov.Reg32(asm.R1, regHead),
		asm.Add.Reg32(asm.R1, asm.R3),
		asm.Sub.Reg32(asm.R1, asm.R0),
		asm.JGT.Imm32(asm.R1, int32(a.size.units), otherwise),
	}
}

// place puts d into R3.
func (a *assembler) place() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg32(asm.R1, regHead).WithSymbol("reserved"),
		asm.And.Imm(asm.R1, int32(a.size.units-1)),
		asm.LSh.Imm(asm.R1, intakeUnitShift),
		asm.Mov.Reg(asm.R3, asm.R5),
		asm.Add.Reg(asm.R3, asm.R1),
		asm.Add.Imm(asm.R3, int32(a.size.data)),
	}
}

// extra writes the offload header, as the kernel's own virtio_net_hdr_from_skb
// makes it for packet sockets, and the tag, and moves R3 on.
func (a *assembler) extra() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regEntry),
		asm.And.Imm(asm.R1, entryExtra),
		asm.JEq.Imm(asm.R1, 0, "copy"),
		asm.StoreMem(asm.RFP, stackData, asm.R3, asm.DWord),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R3, 0, asm.R1, asm.DWord),
		asm.StoreMem(asm.R3, 8, asm.R1, asm.DWord),

		asm.LoadMem(asm.R1, regCtx, skbVLANPresent, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "untagged"),
		asm.LoadMem(asm.R1, regCtx, skbVLANProto, asm.Word),
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.LSh.Imm(asm.R1, 16),
		asm.LoadMem(asm.R2, regCtx, skbVLANTCI, asm.Word),
		asm.Or.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.R3, intakeTag, asm.R1, asm.Word),

		asm.LoadMem(asm.R1, regSKB, a.skb.summed, asm.Byte).WithSymbol("untagged"),
		asm.RSh.Imm(asm.R1, a.skb.summedShift),
		asm.And.Imm(asm.R1, 3),
		asm.JEq.Imm(asm.R1, checksumPartial, "unfinished"),
		asm.JNE.Imm(asm.R1, checksumUnnecessary, "summed"),
		asm.StoreImm(asm.R3, 0, frame.HdrDataValid, asm.Byte),
		asm.Ja.Label("summed"),
		asm.StoreImm(asm.R3, 0, frame.HdrNeedsCsum, asm.Byte).WithSymbol("unfinished"),
		asm.LoadMem(asm.R1, regSKB, a.skb.csumStart, asm.Half), // from head; the frame begins at data
		asm.LoadMem(asm.R2, regSKB, a.skb.data, asm.DWord),
		asm.LoadMem(asm.R4, regSKB, a.skb.head, asm.DWord),
		asm.Sub.Reg(asm.R2, asm.R4),
		asm.Sub.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.R3, 6, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, regSKB, a.skb.csumOffset, asm.Half),
		asm.StoreMem(asm.R3, 8, asm.R1, asm.Half),

		asm.LoadMem(asm.R1, regCtx, skbGSOSize, asm.Word).WithSymbol("summed"),
		asm.JEq.Imm(asm.R1, 0, "whole"),
		asm.StoreMem(asm.R3, 4, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, regCtx, skbLen, asm.Word), // less what is in fragments: the length of the headers
		asm.LoadMem(asm.R2, regSKB, a.skb.dataLen, asm.Word),
		asm.Sub.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.R3, 2, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, regSKB, a.skb.head, asm.DWord),
		asm.LoadMem(asm.R2, regSKB, a.skb.end, asm.Word),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.Mov.Imm(asm.R2, int32(a.skb.sharedInfo)),
		callKfunc(a.skb.readOnlyCast),
		asm.LoadMem(asm.R1, asm.R0, a.skb.gsoType, asm.Word),
		asm.LoadMem(asm.R3, asm.RFP, stackData, asm.DWord),
		asm.Mov.Imm(asm.R2, frame.GSOTCPv4),
		asm.JSet.Imm(asm.R1, skbGSOTCPv4, "typed"),
		asm.Mov.Imm(asm.R2, frame.GSOTCPv6),
		asm.JSet.Imm(asm.R1, skbGSOTCPv6, "typed"),
		asm.Mov.Imm(asm.R2, frame.GSOUDPL4),
		asm.JSet.Imm(asm.R1, skbGSOUDPL4, "typed"),
		asm.Mov.Imm(asm.R2, gsoUnknown),
		asm.And.Imm(asm.R1, skbGSOECN).WithSymbol("typed"),
		asm.JEq.Imm(asm.R1, 0, "unmarked"),
		asm.Or.Imm(asm.R2, frame.GSOECN),
		asm.StoreMem(asm.R3, 1, asm.R2, asm.Byte).WithSymbol("unmarked"),
		asm.Add.Imm(asm.R3, intakeExtra).WithSymbol("whole"),
	}
}

func (a *assembler) copy() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regCtx).WithSymbol("copy"),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R4, regEntry),
		asm.And.Imm(asm.R4, entryLength),
		asm.JGT.Imm(asm.R4, frame.MaxLen, "end"), // which look has seen to: the verifier forgot
		asm.JLT.Imm(asm.R4, frame.HeaderLen, "end"),
		asm.FnSkbLoadBytes.Call(), // can't fail: the frame has that length
	}
}

func (a *assembler) publish() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R5, asm.RFP, stackIntake, asm.DWord),
		asm.RSh.Imm(regHead, 32),
		asm.Mov.Reg(asm.R1, regHead),
		asm.Add.Imm(asm.R1, 1),
		asm.LSh.Imm(asm.R1, entryNumber),
		asm.Or.Reg(asm.R1, regEntry),
		asm.And.Imm(regHead, int32(a.size.entries-1)),
		asm.LSh.Imm(regHead, 3),
		asm.Mov.Reg(asm.R2, asm.R5),
		asm.Add.Reg(asm.R2, regHead),
		atomically(asm.Xchg, asm.R2, intakeSharedLen, asm.R1),
	}
}

// wake wakes up the worker that drives the intake R5, if it sleeps.
func (a *assembler) wake() asm.Instructions {
	p := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R5, offBell, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "end"),
		asm.Mov.Imm(asm.R1, 0),
		atomically(asm.Xchg, asm.R5, offBell, asm.R1),
		asm.JEq.Imm(asm.R1, 0, "end"), // another processor was first
		asm.StoreMem(asm.RFP, stackBell, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackBell),
		asm.Mov.Imm(asm.R3, 8),
		asm.Mov.Imm(asm.R4, ringForced),
	}
	if len(a.intakes) > 1 {
		p = append(p, asm.LoadMem(asm.R0, asm.RFP, stackWhich, asm.DWord))
	}
	for i, r := range a.intakes {
		at := asm.LoadMapPtr(asm.R1, r.bell.FD())
		if i > 0 {
			at = at.WithSymbol(fmt.Sprint("bell", i))
		}
		if i < len(a.intakes)-1 {
			test := asm.JNE.Imm(asm.R0, int32(i), fmt.Sprint("bell", i+1))
			if i > 0 {
				test, at = test.WithSymbol(fmt.Sprint("bell", i)), asm.LoadMapPtr(asm.R1, r.bell.FD())
			}
			p = append(p, test)
		}
		p = append(p, at, asm.FnRingbufOutput.Call(), asm.Ja.Label("end"))
	}
	return p
}

func (a *assembler) end() asm.Instructions {
	count := func(label string, off int16) asm.Instructions {
		return asm.Instructions{
			asm.LoadMem(asm.R5, asm.RFP, stackIntake, asm.DWord).WithSymbol(label),
			asm.Mov.Imm(asm.R1, 1),
			atomically(asm.AddAtomic, asm.R5, off, asm.R1),
		}
	}
	p := append(count("full", offLost), asm.Ja.Label("end"))
	p = append(p, count("bad", offBad)...)
	p = append(p, asm.Mov.Reg(asm.R1, regCtx).WithSymbol("end"))
	return append(p, verdict()...)
}

// callKfunc calls a function of the kernel's.
func callKfunc(id btf.TypeID) asm.Instruction {
	return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(id)}
}

// atomically is an atomic operation with src on the word at off from dst. The
// library loses the operation, which is the instruction's constant, unless it
// stands there, too (cilium/ebpf v0.22.0).
func atomically(op asm.AtomicOp, dst asm.Register, off int16, src asm.Register) asm.Instruction {
	i := op.Mem(dst, src, asm.DWord, off)
	i.Constant = int64(op >> 8)
	return i
}
