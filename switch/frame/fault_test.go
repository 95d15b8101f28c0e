package frame

import (
	"errors"
	"os"
	"runtime/debug"
	"syscall"
	"testing"
)

// guarded calls f as a worker does, and returns what FaultOf made of its panic.
func guarded(f func()) (fault MemoryFault) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = FaultOf(recover()) }()
	f()
	return nil
}

// mapping is a page of a file, which the test truncates or protects.
func mapping(t *testing.T) (mem []byte, f *os.File) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	size := os.Getpagesize()
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	mem, err = syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(mem) })
	return mem, f
}

func TestMemoryThatCannotBeAccessedIsAFault(t *testing.T) {
	var sink byte
	for _, test := range []struct {
		name string
		take func(mem []byte, f *os.File) error
		use  func(mem []byte)
	}{
		{"read of a truncated file", // SIGBUS
			func(_ []byte, f *os.File) error { return f.Truncate(0) },
			func(mem []byte) { sink += mem[8] }},
		{"write to a truncated file",
			func(_ []byte, f *os.File) error { return f.Truncate(0) },
			func(mem []byte) { mem[8] = 1 }},
		{"write to read-only memory", // SIGSEGV
			func(mem []byte, _ *os.File) error { return syscall.Mprotect(mem, syscall.PROT_READ) },
			func(mem []byte) { mem[8] = 1 }},
		{"copy of memory without access", // by the runtime's own assembler
			func(mem []byte, _ *os.File) error { return syscall.Mprotect(mem, syscall.PROT_NONE) },
			func(mem []byte) { copy(make([]byte, 64), mem[8:]) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			mem, f := mapping(t)
			if fault := guarded(func() { test.use(mem) }); fault != nil {
				t.Fatalf("fault %v while all was well", fault)
			}
			if err := test.take(mem, f); err != nil {
				t.Fatal(err)
			}
			fault := guarded(func() { test.use(mem) })
			if fault == nil {
				t.Fatal("no fault")
			}
			if fault.Addr() == 0 || fault.Error() == "" {
				t.Fatalf("fault at %#x: %q", fault.Addr(), fault)
			}
		})
	}
}

func TestPanicsOfOursGoOn(t *testing.T) {
	ours := errors.New("ours")
	var none *Frame
	for name, f := range map[string]func(){
		"a value":       func() { panic(ours) },
		"a nil pointer": func() { none.Tag = 1 },
		"an index":      func() { mem := make([]byte, 1); mem[len(ours.Error())] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("the panic was taken for a fault in memory")
				}
			}()
			guarded(f)
		})
	}
}

func TestRecoveryCostsNothingWithoutAFault(t *testing.T) {
	n := 0
	if allocs := testing.AllocsPerRun(100, func() {
		defer func() {
			if FaultOf(recover()) != nil {
				n = 0
			}
		}()
		n++
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if n == 0 {
		t.Error("a fault where none was")
	}
}
