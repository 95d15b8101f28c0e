package netdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"weak"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/inkernel"
)

// The program that fills intakes is C: bpf/intake.bpf.c. What the compiler makes
// of it is committed; make generate makes it anew.
//
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel intake bpf/intake.bpf.c -- -Wall -Werror -mcpu=v3
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel forward bpf/forward.bpf.c -- -Wall -Werror -mcpu=v3

// intakeSet is the intakes of a port, one for each queue, with what the program
// that fills them must be given.
type intakeSet struct {
	intakes []*intake
	size    intakeSize
	spec    *ebpf.CollectionSpec
	tier    *inkernel.Tier // nil: the program leaves every frame to the worker
	frames  *ebpf.Map      // the memory of all
	bells   *ebpf.Map      // theirs, where the program looks for them
	uplink  *ebpf.Map      // the attachment's

	hanging sync.WaitGroup
	hangErr []error // for each bell
}

// The programs and their maps as they come from the compiler.
var (
	intakeObject  = sync.OnceValues(loadIntake)
	forwardObject = sync.OnceValues(loadForward)
)

// newIntakeSet makes n intakes. With a tier their program forwards what it can by
// itself. Whatever becomes of it, close must be called, and free for each intake.
func newIntakeSet(n int, size intakeSize, tier *inkernel.Tier) (*intakeSet, error) {
	s := &intakeSet{size: size, hangErr: make([]error, n), tier: tier}
	load := intakeObject
	if tier != nil {
		load = forwardObject
	}
	object, err := load()
	if err != nil {
		return s, err
	}
	s.spec = object.Copy()
	if tier != nil {
		s.joinTier(n)
	}
	frames, bells := s.spec.Maps[intakeMapKvswitchFrames], s.spec.Maps[intakeMapKvswitchBells]
	frames.MaxEntries, frames.ValueSize = uint32(n), uint32(size.total)
	frames.Key, frames.Value = nil, nil // their type is that of the head only
	bells.MaxEntries, bells.InnerMap = uint32(n), bellSpec()
	if s.frames, err = ebpf.NewMap(frames); err != nil {
		return s, fmt.Errorf("make memory for frames: %w", err)
	}
	for i := range n {
		r := &intake{}
		s.intakes = append(s.intakes, r)
		if err := r.open(s.frames, i, size); err != nil {
			return s, err
		}
	}
	if err := kernelHasIntakes(); err != nil {
		return s, err
	}
	if s.bells, err = ebpf.NewMap(bells); err != nil {
		return s, fmt.Errorf("make list of bells: %w", err)
	}
	// A map in a map is there for all when the kernel's grace period is over, some
	// 6 ms, which to attach the program takes, too: that goes on meanwhile.
	for i, r := range s.intakes {
		s.hanging.Go(func() { s.hangErr[i] = s.bells.Put(uint32(i), r.bell) })
	}
	return s, nil
}

// close waits until all bells can be rung, and reports why one can't. It gives
// back what program and intakes keep by themselves.
func (s *intakeSet) close() error {
	s.hanging.Wait()
	for _, m := range []*ebpf.Map{s.frames, s.bells} {
		if m != nil {
			m.Close()
		}
	}
	if err := errors.Join(s.hangErr...); err != nil {
		return fmt.Errorf("hang up bells: %w", err)
	}
	return nil
}

// free frees the intakes.
func (s *intakeSet) free() {
	for _, r := range s.intakes {
		r.free()
	}
}

// program makes the program that fills the intakes.
func (s *intakeSet) program() (*ebpf.Program, error) {
	_ = rlimit.RemoveMemlock()
	if err := s.spec.Variables["size"].Set(intakeSizes{
		Queues: uint32(len(s.intakes)), Entries: uint32(s.size.entries), Units: uint32(s.size.units), Data: uint32(s.size.data),
	}); err != nil {
		return nil, fmt.Errorf("set sizes of BPF program: %w", err)
	}
	maps, name := map[string]*ebpf.Map{intakeMapKvswitchFrames: s.frames, intakeMapKvswitchBells: s.bells}, intakeProgKvswitchIntake
	if s.tier != nil {
		sizes := s.tier.Sizes()
		if err := s.spec.Variables["tier_size"].Set(forwardTierSizes{Buckets: sizes.Buckets, Filtering: sizes.Filtering}); err != nil {
			return nil, fmt.Errorf("set sizes of BPF program: %w", err)
		}
		name = forwardProgKvswitchForward
		for name, m := range s.tier.Maps() {
			maps[name] = m
		}
	}
	if s.uplink != nil {
		maps[uplinkMap] = s.uplink
	}
	sizes, err := constants(s.spec)
	if err != nil {
		return nil, err
	}
	defer sizes.Close()
	maps[".rodata"] = sizes
	c, err := ebpf.NewCollectionWithOptions(s.spec, ebpf.CollectionOptions{
		MapReplacements: maps,
		Programs:        ebpf.ProgramOptions{},
		Cache:           kernelTypes(),
	})
	if err != nil {
		return nil, loadError(err, "")
	}
	defer c.Close()
	return c.DetachProgram(name), nil
}

// joinTier fits the program's maps to those of the tier, and the one that is its
// own to n intakes.
func (s *intakeSet) joinTier(n int) {
	for name, m := range s.tier.Maps() {
		spec := s.spec.Maps[name]
		spec.ValueSize, spec.MaxEntries = m.ValueSize(), m.MaxEntries()
		spec.Key, spec.Value = nil, nil // their type is that of the head only
	}
	s.spec.Maps[forwardMapKvswitchNotes].MaxEntries = uint32(n)
}

// constants is the section of the program's constants. The library would make it
// as well, but by a name that nobody would know for ours.
func constants(spec *ebpf.CollectionSpec) (*ebpf.Map, error) {
	section := spec.Maps[".rodata"]
	section.Name = "kvswitch_sizes"
	value := make([]byte, section.ValueSize)
	for _, v := range spec.Variables {
		if v.SectionName == ".rodata" {
			copy(value[v.Offset:], v.Value)
		}
	}
	section.Contents = []ebpf.MapKV{{Key: uint32(0), Value: value}}
	m, err := ebpf.NewMap(section)
	if err != nil {
		return nil, fmt.Errorf("make constants of BPF program: %w", err)
	}
	if err := m.Freeze(); err != nil { // or the verifier won't take them for constants
		m.Close()
		return nil, fmt.Errorf("make constants of BPF program: %w", err)
	}
	return m, nil
}

// loadError is the error of loading a program, without what would be said twice.
func loadError(err error, hint string) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("load BPF program: %w%s", unix.EPERM, hint)
	case errors.As(err, &verifier):
		if slices.ContainsFunc(verifier.Log, func(line string) bool { return strings.Contains(line, "!root") }) {
			return fmt.Errorf("load BPF program: %w%s", unix.EPERM, hint) // no CAP_PERFMON, as the verifier puts it
		}
		err = verifier
	}
	return fmt.Errorf("load BPF program: %w", err)
}

// kernelHasIntakes reports what the running kernel lacks for intakes, which
// doesn't change. The library would say so, too, in words of its own.
var kernelHasIntakes = sync.OnceValue(func() error {
	spec, err := kernelTypes().Kernel()
	if err != nil {
		return fmt.Errorf("read the kernel's type information: %w", err)
	}
	for _, name := range []string{"bpf_cast_to_kern_ctx", "bpf_rdonly_cast"} { // Linux 6.2
		var f *btf.Func
		if err := spec.TypeByName(name, &f); err != nil {
			return fmt.Errorf("find kernel function %s: %w", name, err)
		}
	}
	return nil
})

// kernelTypes is the kernel's description of its types (BTF). To read it takes
// 20 ms, and what was read megabytes: so ports that come together share it, and
// afterwards it is garbage.
func kernelTypes() *btf.Cache {
	theTypes.Lock()
	defer theTypes.Unlock()
	c := theTypes.Value()
	if c == nil {
		c = btf.NewCache()
		theTypes.Pointer = weak.Make(c)
	}
	return c
}

var theTypes struct {
	sync.Mutex
	weak.Pointer[btf.Cache]
}

// IntakeAvailable reports why this process can't receive by intakes, or nil.
func IntakeAvailable() error {
	s, err := newIntakeSet(1, sizeOfIntake(2*blockSize), nil)
	defer s.free()
	defer s.close()
	if err != nil {
		return err
	}
	program, err := s.program()
	if err != nil {
		return err
	}
	return program.Close()
}
