package main

import (
	"strings"
	"testing"
)

// answer is what the program says to words, and its exit code.
func answer(words ...string) (code int, out, errors string) {
	var stdout, stderr strings.Builder
	code = execute(words, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// What would otherwise mean the default is a run of half an hour.
func TestWhatMakesNoSenseIsRefused(t *testing.T) {
	for _, tc := range []struct {
		text string
		args []string
	}{
		{"--runs 0: want at least 1", []string{"--runs", "0"}},
		{"-1 runs", []string{"--runs", "-1"}},
		{"--path is empty", []string{"--path", ""}},
		{"--sizes is empty", []string{"--sizes", ""}},
		{"--tests is empty", []string{"--tests="}},
		{"--against is empty", []string{"--against", ""}},
		{"--report is empty", []string{"--report", ""}},
		{"flows", []string{"--flows", ""}},
		{"parse frame size", []string{"--sizes", "64,"}},
		{"unknown contender", []string{"--against", "cisco"}},
		{"unknown test on path tap", []string{"--path", "tap", "--tests", "bulk"}},
		{"nothing to measure", []string{"--path", "tap", "--tests", "latency", "--sizes", "imix"}},
		{"unknown flag: --fast: see `kvswitch bench --help`", []string{"--fast"}},
		{`want "kvswitch bench [flags]"`, []string{"now"}},
		{`want "kvswitch bench [flags]"`, []string{"bench"}},
		{"--runs 0", []string{"--run-dir", t.TempDir(), "--runs", "0"}}, // a flag that all verbs take
	} {
		code, out, errs := answer(tc.args...)
		if code != exitUsage || out != "" || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "kvswitch: ") || !strings.Contains(errs, tc.text) {
			t.Errorf("%q: exit code %d, %q, %q; want one line with %q", tc.args, code, out, errs, tc.text)
		}
	}
}

func TestARunThatFailsSaysSo(t *testing.T) {
	code, out, errs := answer("--report", "/proc/nowhere/at/all")
	if code != exitFailed || out != "" || !strings.HasPrefix(errs, "kvswitch: bench: ") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}

func TestHelpIsThatOfTheVerb(t *testing.T) {
	code, out, errs := answer("--help")
	if code != exitDone || errs != "" || !strings.Contains(out, "Usage:\n  kvswitch bench [flags]\n") || !strings.Contains(out, "--report string") {
		t.Errorf("exit code %d, %q:\n%s", code, errs, out)
	}
}

func TestWordsAreCompleted(t *testing.T) {
	for _, tc := range []struct {
		words []string
		want  string // the answers, without descriptions
	}{
		{[]string{"--qu"}, "--quick"},
		{[]string{"--path", ""}, "veth tap vhost-user vm"},
		{[]string{"--against", "kernel,"}, "kernel,ovs kernel,vde"},
		{[]string{"--tests", "b"}, "bulk broadcast"},
		{[]string{""}, ""},
	} {
		code, out, _ := answer(append([]string{"__complete"}, tc.words...)...)
		var got []string
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if !strings.HasPrefix(word, ":") {
				got = append(got, word)
			}
		}
		if code != exitDone || strings.Join(got, " ") != tc.want {
			t.Errorf("%q: exit code %d, %q, want %q", tc.words, code, got, tc.want)
		}
	}
}
