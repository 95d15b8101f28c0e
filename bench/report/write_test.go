package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// names are the files in a directory.
func names(t *testing.T, dir string) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, e := range entries {
		all[e.Name()] = true
	}
	return all
}

func program(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r.Program
}

func TestAnInterruptedRunLeavesACompleteReportAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := Prepare(dir); err != nil {
		t.Fatal(err)
	}
	write := func(program string, complete bool, want string) {
		t.Helper()
		r := sample()
		r.Program, r.Complete = program, complete
		if path, err := Write(dir, r); err != nil || path != filepath.Join(dir, want) {
			t.Errorf("%s went to %s, error %v; want %s", program, path, err, want)
		}
	}
	write("cut short", false, "report.json")
	write("cut short again", false, "report.json")
	write("whole", true, "report.json")
	write("cut short at last", false, "report-incomplete.json")
	if got := program(t, filepath.Join(dir, "report.json")); got != "whole" {
		t.Errorf("report.json is that of the run %q", got)
	}
	write("whole again", true, "report.json")
	all := names(t, dir)
	for _, want := range []string{
		"report.json", "report.html", "results.md",
		"report-incomplete.json", "report-incomplete.html", "results-incomplete.md",
	} {
		if !all[want] {
			t.Errorf("no %s in %v", want, all)
		}
		delete(all, want)
	}
	if len(all) > 0 {
		t.Errorf("left behind: %v", all)
	}
}

func TestAFolderThatTakesNoReportIsFoundBefore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below"), "/proc/kvswitch"} {
		if err := Prepare(dir); err == nil {
			t.Errorf("%s is taken for a folder", dir)
		}
	}
}
