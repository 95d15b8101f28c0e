package fdb

import (
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// question is struct question of testdata/answer.h.
type question struct{ op, key, port, answer, also uint64 }

const (
	askNothing = iota
	askLookup  // value
	askHeard   // on port: 1 or 0
	askHomes   // first << 32 | second, third
	askFind    // value, offset of the slot
	askRefresh // of what find has answered
)

// questions are asked at a time.
const questions = 64

// reader is somebody who reads a table by fdb.h.
type reader struct {
	memory Memory // n buckets and n/8 overflow buckets
	n      int
	q      []question
	ask    func(rounds uint32) // answers q that many times
	step   func()              // called before each load, by the stepped one
}

// eachReader runs a test with a reader on the host and one in the kernel.
func eachReader(t *testing.T, n int, test func(*testing.T, *reader)) {
	t.Run("host", func(t *testing.T) { test(t, hostReader(t, n)) })
	t.Run("bpf", func(t *testing.T) { test(t, bpfReader(t, n)) })
}

// compile runs a compiler and returns the path of what it made.
func compile(t *testing.T, compiler string, args ...string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "made")
	if out, err := exec.Command(compiler, append(args, "-O2", "-Wall", "-Wextra", "-Werror", "-o", to)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", compiler, err, out)
	}
	return to
}

// hostReader is a process that has mapped the same file.
func hostReader(t *testing.T, n int, flags ...string) *reader {
	program, path := compile(t, "gcc", append(flags, "testdata/host.c")...), filepath.Join(t.TempDir(), "table")
	size := HeadSize + BucketSize*(n+n/8) + questionSize*questions
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(int64(size))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := mapped(t, int(f.Fd()), size)
	memory, rest := memoryIn(m, n)

	cmd := exec.Command(program, path, strconv.Itoa(n), strconv.Itoa(questions))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("reader: %v", err)
		}
	})
	r := &reader{memory: memory, n: n, q: questionsIn(rest, questions)}
	r.ask = func(rounds uint32) {
		t.Helper()
		var word [4]byte
		for {
			binary.NativeEndian.PutUint32(word[:], rounds)
			if _, err := in.Write(word[:]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, word[:]); err != nil {
				t.Fatal(err)
			}
			if binary.NativeEndian.Uint32(word[:]) != 0 {
				return
			}
			r.step()
		}
	}
	return r
}

// one asks a single question.
func (r *reader) one(q question) question {
	clear(r.q)
	r.q[0] = q
	r.ask(1)
	return r.q[0]
}

// mapped maps a file until the test ends.
func mapped(t *testing.T, fd, size int) []byte {
	t.Helper()
	m, err := syscall.Mmap(fd, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(m) })
	return m
}

// table makes a small table in the reader's memory.
func (r *reader) table(max int, ageing uint32) *Table {
	*r.memory.Head = Head{}
	clear(r.memory.Buckets)
	return newTable(r.memory, max, ageing, r.n)
}
