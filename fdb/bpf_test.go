package fdb

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// bpfReader is a program in the kernel, and the table is its map.
func bpfReader(t *testing.T, n int) *reader {
	if os.Getuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root to load a BPF program")
	}
	spec, err := ebpf.LoadCollectionSpec(compile(t, "clang-19", "-target", "bpf", "-mcpu=v3", "-g", "-c", "testdata/bpf.c"))
	if err != nil {
		t.Fatal(err)
	}
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
