package main

import "testing"

// What would otherwise mean the default is a run of half an hour.
func TestBenchRefusesWhatMakesNoSense(t *testing.T) {
	h := &host{t: t, dir: t.TempDir()}
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
	} {
		h.refused(2, tc.text, append([]string{"bench"}, tc.args...)...)
	}
}
