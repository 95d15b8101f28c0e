package fdb

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

func bpfSpec(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpec(compile(t, "clang-19", "-target", "bpf", "-mcpu=v3", "-g", "-c", "testdata/bpf.c"))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// bpfReader is a program in the kernel, and the table is its map.
func bpfReader(t *testing.T, n int) *reader {
	if os.Getuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root to load a BPF program")
	}
	spec := bpfSpec(t)
	size := HeadSize + BucketSize*(n+n/8)
	spec.Maps["table"].ValueSize = uint32(size)
	if err := spec.Variables["buckets"].Set(uint32(n)); err != nil {
		t.Fatal(err)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		var refused *ebpf.VerifierError
		if errors.As(err, &refused) {
			t.Fatalf("%+v", refused)
		}
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	memory, _ := memoryIn(mapped(t, c.Maps["table"].FD(), size), n)
	q := questionsIn(mapped(t, c.Maps["questions"].FD(), questionSize*questions), questions)
	return &reader{memory: memory, n: n, q: q, ask: func(rounds uint32) {
		got, err := c.Programs["answer_all"].Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: rounds})
		if err != nil || got != 0 {
			t.Fatalf("program: %d %v", got, err)
		}
	}}
}

// Where processors reorder loads, the three of fdb_read need an order: of BPF an
// address that depends on the load before, of arm64 acquire loads. This machine
// may be one that wouldn't show their absence, so the code is looked at.
func TestReadersLoadsAreOrdered(t *testing.T) {
	dependent := 0
	for i, ins := 0, bpfSpec(t).Programs["answer_all"].Instructions; i+2 < len(ins); i++ {
		if ins[i].OpCode == asm.And.Op(asm.ImmSource) && ins[i].Constant == 0 {
			for _, next := range ins[i+1 : i+3] {
				if next.OpCode == asm.Add.Op(asm.RegSource) && (next.Src == ins[i].Dst || next.Dst == ins[i].Dst) {
					dependent++
				}
			}
		}
	}
	if dependent < 2 {
		t.Errorf("%d loads of the program depend on the ones before, want 2 or more", dependent)
	}
	source := filepath.Join(t.TempDir(), "read.c")
	program := "#include \"fdb.h\"\nfdb_u64 read_it(struct fdb_slot *s, fdb_u64 k) { return fdb_read(s, k); }\n"
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(compile(t, "clang-19", "--target=aarch64-linux-gnu", "-ffreestanding", "-I.", "-S", source))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(code, []byte("\tldar\t")); n != 3 {
		t.Errorf("%d acquire loads, want 3:\n%s", n, code)
	}
}
