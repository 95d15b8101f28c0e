package gen

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/topo"
	"github.com/kvswitch/kvswitch/switch/host/sysio"
)

const (
	// liveRate is more frames/s than the kernel can send in one thread. A call
	// costs some 20 ms beside its frames, so a trial is one call of as many frames
	// as it could possibly send; those left when its time is over are dropped at
	// birth.
	liveRate = 4_000_000
	// liveFlag is BPF_F_TEST_XDP_LIVE_FRAMES, linux/bpf.h.
	liveFlag = 1 << 1
	xdpTX    = 3
	// rxGRO is the feature that makes a veth device poll (NAPI), without which
	// it takes no XDP frames from its peer.
	rxGRO = "rx-gro"
)

// LiveSender has the kernel make frames out of nothing and send them as XDP
// does (BPF_PROG_RUN in live frame mode, Linux 5.18). That costs the sender much
// less than a socket, so more frames/s can be offered, and the receiving side
// gets frames that are no sk_buffs yet, as from a NIC driver.
//
// It knows one flow, one frame size and full speed, and carries neither time
// stamps nor a valid check: its frames are for counting.
type LiveSender struct {
	port    topo.Port
	frame   []byte
	program *ebpf.Program
	count   *ebpf.Map
	restore func() error
}

// NewLiveSender makes a sender from the flow's port. Until Close the device on
// the other side of that port's cable polls, as NICs do.
func NewLiveSender(t *topo.Topology, size probe.Size, f probe.Flows) (*LiveSender, error) {
	if size.GSO || len(size.Lengths) > 1 || f.Count > 1 {
		return nil, fmt.Errorf("make XDP sender: want one flow of frames of one plain size")
	}
	s := &LiveSender{port: t.Ports[f.From], frame: make([]byte, size.Lengths[0])}
	tmpl := probe.Build(s.frame, false, 0)
	dst, src := f.Address(0)
	tmpl.Stamp(dst, src, 0, 0)
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("make XDP sender: %w", err), s.Close())
	}
	if err := s.prepare(t, f.From); err != nil {
		return nil, errors.Join(fmt.Errorf("make XDP sender: %w", err), s.Close())
	}
	return s, nil
}

// prepare makes the far end of the cable poll.
func (s *LiveSender) prepare(t *topo.Topology, from int) error {
	var h *netns.Host
	device := ""
	switch {
	case t.Spec.Bare:
		return nil // a tap takes XDP frames as it is
	case t.Spec.Direct:
		h, device = t.Ports[1-from].Host, t.Ports[1-from].End
	default:
		h, device = t.Switch, t.Ports[from].Name
	}
	before, err := topo.Offloads(h, device)
	if err != nil || before[rxGRO] {
		return err
	}
	s.restore = func() error { return topo.SetOffload(h, device, rxGRO, false) }
	return topo.SetOffload(h, device, rxGRO, true)
}

// The program's map has two entries: how many frames were sent so far, which the
// program writes, and whether to send no more, which it reads.
const (
	liveCount = iota
	liveStop
	liveEntries
)

// load makes the program: number the frame and transmit it. The kernel reuses
// its frames with what was written to them.
func (s *LiveSender) load() (err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise locked memory limit: %w", err)
	}
	s.count, err = ebpf.NewMap(&ebpf.MapSpec{Name: "kvs_sent", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: liveEntries})
	if err != nil {
		return fmt.Errorf("make map: %w", err)
	}
	at := probe.StampOffset(false)
	entry := func(key int64) asm.Instructions { // R0 = &map[key]
		return asm.Instructions{
			asm.StoreImm(asm.RFP, -4, key, asm.Word),
			asm.LoadMapPtr(asm.R1, s.count.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "drop"),
		}
	}
	s.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kvs_live", Type: ebpf.XDP, License: "MIT",
		Instructions: slices.Concat(asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 0, asm.Word), // xdp_md.data
			asm.LoadMem(asm.R7, asm.R1, 4, asm.Word), // xdp_md.data_end
		}, entry(liveStop), asm.Instructions{
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.JNE.Imm(asm.R1, 0, "drop"),
			asm.Mov.Reg(asm.R3, asm.R6),
			asm.Add.Imm(asm.R3, int32(at+6)),
			asm.JGT.Reg(asm.R3, asm.R7, "drop"),
		}, entry(liveCount), asm.Instructions{
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.Mov.Reg(asm.R2, asm.R1),
			asm.Add.Imm(asm.R2, 1),
			asm.StoreMem(asm.R0, 0, asm.R2, asm.DWord),
			asm.HostTo(asm.BE, asm.R1, asm.Word),
			asm.StoreMem(asm.R6, int16(at+2), asm.R1, asm.Word),
			asm.Mov.Imm(asm.R0, xdpTX),
			asm.Return(),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("drop"), // XDP_DROP
			asm.Return(),
		}),
	})
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	return nil
}

// xdpContext is struct xdp_md, linux/bpf.h.
type xdpContext struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// Send sends for the load's time, at full speed whatever its rate says. Mark is
// called on another thread than the sender's.
func (s *LiveSender) Send(ctx context.Context, l Load) (Sent, error) {
	if err := s.setStop(false); err != nil {
		return Sent{}, err
	}
	first, err := s.sent()
	if err != nil {
		return Sent{}, err
	}
	begun := make(chan int) // gets the thread's id
	ended := make(chan error)
	var end time.Duration // processor time of that thread
	go func() {
		runtime.LockOSThread()
		if err := sysio.SetAffinity(CPU); err != nil {
			ended <- err
			return
		}
		// The program finds the device by its index in the thread's namespace.
		err := s.port.Host.Do(func() error {
			begun <- unix.Gettid()
			return s.run(l.Warm + l.Length)
		})
		var timeErr error
		end, timeErr = threadTime(unix.Gettid())
		ended <- errors.Join(err, timeErr)
	}()
	thread := 0
	select {
	case err := <-ended:
		return Sent{}, err
	case thread = <-begun:
	}
	sent, over, err := s.watch(ctx, l, first)
	stopped, timeErr := threadTime(thread)
	err = errors.Join(err, timeErr, s.setStop(true), <-ended)
	if err != nil {
		return sent, err
	}
	total, err := s.sent()
	sent.After, sent.Stopping = total-over, end-stopped
	return sent, err
}

// threadTime is the processor time that a thread of this process has used:
// clock_getcpuclockid(3) for threads.
func threadTime(id int) (time.Duration, error) {
	const perThread, scheduled = 4, 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^id<<3|perThread|scheduled), &ts); err != nil {
		return 0, fmt.Errorf("read a thread's time: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// run makes the call.
func (s *LiveSender) run(length time.Duration) error {
	_, err := s.program.Run(&ebpf.RunOptions{
		Data:    s.frame,
		Context: xdpContext{DataEnd: uint32(len(s.frame)), IngressIfindex: uint32(s.port.Index)},
		Repeat:  uint32(liveRate * length.Seconds()),
		Flags:   liveFlag,
	})
	if err != nil {
		return fmt.Errorf("send XDP frames: %w", err)
	}
	return nil
}

// watch keeps the time of a trial: from the first frame on, before which first
// had been sent. It also returns how many had when the trial was over.
func (s *LiveSender) watch(ctx context.Context, l Load, first uint64) (sent Sent, over uint64, err error) {
	for limit := time.Now().Add(liveStart); ; {
		n, err := s.sent()
		if err != nil || ctx.Err() != nil {
			return sent, n, errors.Join(err, ctx.Err())
		}
		if n > first {
			break
		}
		if time.Now().After(limit) {
			return sent, n, fmt.Errorf("send XDP frames: none went out in %v", liveStart)
		}
		sleep(nap)
	}
	Wait(ctx, l.Warm)
	begin := time.Now()
	before, err := s.sent()
	if l.Mark != nil {
		l.Mark()
	}
	Wait(ctx, l.Length)
	after, err2 := s.sent()
	if l.Mark != nil {
		l.Mark()
	}
	return Sent{Frames: after - before, Warm: before - first, Elapsed: time.Since(begin)}, after, errors.Join(err, err2, ctx.Err())
}

// liveStart is how long the first frame may take.
const liveStart = 2 * time.Second

// sent is the number of frames sent since the sender was made.
func (s *LiveSender) sent() (n uint64, err error) {
	if err = s.count.Lookup(uint32(liveCount), &n); err != nil {
		err = fmt.Errorf("read number of frames sent: %w", err)
	}
	return n, err
}

// setStop tells the program whether to go on.
func (s *LiveSender) setStop(stop bool) error {
	v := uint64(0)
	if stop {
		v = 1
	}
	if err := s.count.Put(uint32(liveStop), v); err != nil {
		return fmt.Errorf("stop or start XDP frames: %w", err)
	}
	return nil
}

// Close frees the program and puts the far end of the cable back.
func (s *LiveSender) Close() error {
	var errs []error
	if s.program != nil {
		errs = append(errs, s.program.Close())
	}
	if s.count != nil {
		errs = append(errs, s.count.Close())
	}
	if s.restore != nil {
		errs = append(errs, s.restore())
	}
	return errors.Join(errs...)
}
