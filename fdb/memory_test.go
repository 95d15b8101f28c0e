package fdb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// The numbers of fdb.h are ours.
func TestHeaderHasTheSameNumbers(t *testing.T) {
	source := filepath.Join(t.TempDir(), "numbers.c")
	program := "#include <stdio.h>\n#include \"fdb.h\"\nint main(void) { unsigned long long n[] = {" +
		"FDB_MAX_PORTS, FDB_KEY_VALID, FDB_VID_SHIFT, FDB_PORT_SHIFT, FDB_GEN_SHIFT, FDB_KIND_SHIFT, FDB_INC_SHIFT, " +
		"FDB_SEC_MASK, FDB_INC_MASK << FDB_INC_SHIFT, FDB_GEN_MASK, FDB_KIND_MASK, FDB_FREE, FDB_DYNAMIC, FDB_STATIC, FDB_LOCAL, " +
		"sizeof(struct fdb_head), sizeof(struct fdb_bucket), fdb_size(2048)};\n" +
		"for (unsigned i = 0; i < sizeof n / sizeof *n; i++)\n\tprintf(\"%llu \", n[i]);\nreturn 0; }\n"
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(compile(t, "gcc", "-I.", source)).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, n := range []uint64{
		MaxPorts, keyValid, 48, portShift, genShift, kindShift, incShift,
		secMask, incMask, 1<<16 - 1, 3, uint64(free), uint64(Dynamic), uint64(Static), uint64(Local),
		HeadSize, BucketSize, uint64(MemorySize(512)),
	} {
		want += fmt.Sprint(n) + " "
	}
	if string(out) != want {
		t.Errorf("fdb.h %s\nGo    %s", out, want)
	}
}

// Every bit of a value belongs to one field.
func TestWordFieldsFillTheWord(t *testing.T) {
	fields := []uint64{secMask, incMask, 3 << kindShift, 0xffff << genShift, (MaxPorts - 1) << portShift}
	var sum uint64
	for _, f := range fields {
		if sum&f != 0 {
			t.Errorf("%x overlaps %x", f, sum)
		}
		sum |= f
	}
	if sum != 1<<64-1 || !slices.IsSorted(fields) {
		t.Errorf("fields %x", fields)
	}
}

func TestMemoryThatIsNotATablesIsRefused(t *testing.T) {
	good := NewMemory(1000)
	for name, m := range map[string]Memory{
		"nothing":       {},
		"no head":       {nil, good.Buckets},
		"one too few":   {good.Head, good.Buckets[1:]},
		"not aligned":   unaligned(1000),
		"another max's": NewMemory(100_000),
	} {
		if _, err := NewIn(m, 1000, 300); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	tb, err := NewIn(good, 1000, 300)
	if err != nil {
		t.Fatal(err)
	}
	wantLearn(t, tb, testKey(0), 1, Added)
	if _, err := NewIn(good, 1000, 300); err == nil {
		t.Error("a second table in the same memory")
	}
}

// The sizes that MemorySize's comment names.
func TestMemorySizeFollowsTheLimit(t *testing.T) {
	for max, want := range map[int]int{1: 163904, 0: 2375744, DefaultMax: 2375744, MaxEntries: 151011392, MaxEntries + 1: 151011392} {
		if got := MemorySize(max); got != want {
			t.Errorf("MemorySize(%d) = %d, want %d", max, got, want)
		}
		if got := HeadSize + BucketSize*NumBuckets(max); got != want {
			t.Errorf("%d buckets for %d", NumBuckets(max), max)
		}
	}
}
