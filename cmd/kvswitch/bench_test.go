package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// installed is a copy of the program in a directory of its own.
func installed(t *testing.T, words ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd = program(t, dir, words...)
	self := filepath.Join(dir, "kvswitch")
	if err := os.Link(cmd.Path, self); err != nil {
		copyFile(t, cmd.Path, self)
	}
	cmd.Path = self
	cmd.Env = append(cmd.Env, "PATH="+t.TempDir(), "KVSWITCH_BIN=")
	return cmd, dir
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// put writes a stand-in for the bench that says by what words, in what process and
// for which switch it was called.
func put(t *testing.T, dir, says string) {
	t.Helper()
	script := "#!/bin/sh\necho '" + says + "' $$ \"$KVSWITCH_BIN\"\nfor w; do echo \"[$w]\"; done\necho trouble >&2\n" + "case $1 in kill) kill -TERM $$;; esac\nexit 7\n"
	if err := os.WriteFile(filepath.Join(dir, benchProgram), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestBenchBecomesTheProgramBeside(t *testing.T) {
	for _, tc := range []struct{ words, want []string }{
		{[]string{"bench"}, nil},
		{[]string{"bench", "--quick", "--path", "", "a b", "--help"}, []string{"--quick", "--path", "", "a b", "--help"}},
		{[]string{"--run-dir", "/x", "bench", "--json"}, []string{"--run-dir", "/x", "--json"}},
		{[]string{"help", "bench"}, []string{"--help"}},
		{[]string{"__complete", "bench", "--path", ""}, []string{"__complete", "--path", ""}},
		{[]string{"__completeNoDesc", "--run-dir", "/x", "bench", "--q"}, []string{"__completeNoDesc", "--run-dir", "/x", "--q"}},
	} {
		cmd, dir := installed(t, tc.words...)
		put(t, dir, "beside")
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		want := fmt.Sprintf("beside %d %s\n", cmd.Process.Pid, cmd.Path)
		for _, w := range tc.want {
			want += "[" + w + "]\n"
		}
		if code := cmd.ProcessState.ExitCode(); code != 7 || out.String() != want || errs.String() != "trouble\n" {
			t.Errorf("kvswitch %q: exit code %d, %q:\n%swant 7 and\n%s", tc.words, code, errs.String(), out.String(), want)
		}
	}
}

func TestBenchEndsAsTheProgramDoes(t *testing.T) {
	cmd, dir := installed(t, "bench", "kill")
	put(t, dir, "beside")
	cmd.Run()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("it has ended with %v, want the program's SIGTERM", cmd.ProcessState)
	}
}

func TestBenchIsSoughtBesideFirst(t *testing.T) {
	for _, tc := range []struct {
		name         string
		beside, path bool
		link         bool   // called by a link elsewhere
		bin          string // KVSWITCH_BIN as the caller has it
		want         string
	}{
		{name: "beside", beside: true, path: true, want: "beside"},
		{name: "behind a link", beside: true, path: true, link: true, want: "beside"},
		{name: "in PATH", path: true, want: "path"},
		{name: "another switch", beside: true, bin: "/other/kvswitch", want: "beside"},
	} {
		cmd, dir := installed(t, "bench")
		self := cmd.Path
		elsewhere := t.TempDir()
		if tc.beside {
			put(t, dir, "beside")
		}
		if tc.path {
			put(t, elsewhere, "path")
		}
		if tc.link {
			link := filepath.Join(t.TempDir(), "kvswitch")
			if err := os.Symlink(self, link); err != nil {
				t.Fatal(err)
			}
			cmd.Path = link
		}
		cmd.Env = append(cmd.Env, "PATH="+elsewhere, "KVSWITCH_BIN="+tc.bin)
		r := run(t, cmd)
		bin := tc.bin
		if bin == "" {
			bin = self
		}
		if f := strings.Fields(r.out); r.code != 7 || len(f) != 3 || f[0] != tc.want || f[2] != bin {
			t.Errorf("%s: exit code %d, %q %q; want that of %s for %s", tc.name, r.code, r.out, r.errors, tc.want, bin)
		}
	}
}

func TestAMissingBenchIsOneLine(t *testing.T) {
	for _, words := range [][]string{{"bench", "--quick"}, {"bench", "--help"}, {"help", "bench"}} {
		cmd, dir := installed(t, words...)
		// Neither what can't be executed nor what lies in the current directory.
		if err := os.WriteFile(filepath.Join(dir, benchProgram), []byte("#!/bin/sh\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd.Dir = t.TempDir()
		put(t, cmd.Dir, "current directory")
		cmd.Env = append(cmd.Env, "PATH=.")
		r := run(t, cmd)
		if r.code != exitFailed || r.out != "" || strings.Count(r.errors, "\n") != 1 ||
			!strings.HasPrefix(r.errors, "kvswitch: bench: kvswitch-bench is not installed: ") || !strings.Contains(r.errors, "make install") {
			t.Errorf("%q: exit code %d, %q, %q", words, r.code, r.out, r.errors)
		}
	}
	cmd, _ := installed(t, "__complete", "bench", "--q")
	if r := run(t, cmd); r.code != exitDone || strings.Contains(r.out, "--quick") {
		t.Errorf("completion without it: exit code %d, %q", r.code, r.out)
	}
}
