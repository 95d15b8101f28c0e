package bench

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/measure"
	"github.com/kvswitch/kvswitch/bench/probe"
	"github.com/kvswitch/kvswitch/bench/stats"
	"github.com/kvswitch/kvswitch/bench/subject"
	"github.com/kvswitch/kvswitch/bench/trial"
)

// Tests in the order in which they run.
var Tests = measure.Tests

// Sizes are those of Options.Sizes that every run has by default.
var Sizes = probe.StandardSizes

// Paths between the contenders and the far ends.
var Paths = subject.Paths

// Families are what Options.Against chooses from.
var Families = []string{"kernel", "ovs", "vde"}

// possible says which tests a path allows: where this program holds the far ends
// itself there is no network stack behind them, and there are two of them; and
// what real guests can send is no load for a switch.
func possible(path string) []string {
	switch path {
	case "veth":
		return Tests
	case "vm":
		return []string{"latency", "bulk"}
	}
	return []string{"throughput", "latency"}
}

// Options say what to run. The zero value of each field means its default.
type Options struct {
	// Against are the families of contenders: "kernel", "ovs", "vde". kvswitch
	// and the plain cable are always there, and so is the kernel's bridge as
	// the reference.
	Against []string
	// Path is one of Paths.
	Path string
	// Sizes are frame sizes as probe.ParseSize takes them, for throughput and
	// latency. Their order here, or that of Flows and Tests, plays no part, and
	// what is there twice counts once.
	Sizes []string
	// Flows are numbers of address pairs, for throughput.
	Flows []int
	// Runs is the number of rounds, in each of which every contender has a turn.
	Runs int
	// Tests are some of Tests.
	Tests []string
	// ReportDir gets report.json, report.html and results.md, as report.Write
	// writes them; empty writes none.
	ReportDir string
	// Quick shortens everything to a smoke run that shows that the bench works, on
	// a busy machine, too: disturbed trials count. Its figures are no basis for
	// conclusions.
	Quick bool
	// Out gets the tables, Progress what is going on meanwhile: one line that
	// rewrites itself if it is a terminal. nil discards.
	Out, Progress io.Writer
	// Program is the version that the report names.
	Program string

	// trialLength is that of one trial; tests shorten it.
	trialLength time.Duration
	// tolerant counts disturbed trials, too, and does not look whether the machine
	// is busy: for tests of the bench itself.
	tolerant bool
	// kinds are the contenders; tests put their own there.
	kinds []subject.Kind
	// asked says what was not left to the defaults.
	asked struct{ against, sizes, flows bool }
}

// Validate reports what makes no sense, without running anything.
func (o Options) Validate() error { return o.complete() }

// complete fills in defaults and refuses what makes no sense.
func (o *Options) complete() error {
	o.asked.against, o.asked.sizes, o.asked.flows = len(o.Against) > 0, len(o.Sizes) > 0, len(o.Flows) > 0
	def := func(list *[]string, all []string, what string) error {
		if len(*list) == 0 {
			*list = all
		}
		for _, s := range *list {
			if !slices.Contains(all, s) {
				return fmt.Errorf("unknown %s %q: want some of %s", what, s, strings.Join(all, ","))
			}
		}
		return nil
	}
	if err := def(&o.Against, Families, "contender"); err != nil {
		return err
	}
	if o.Path == "" {
		o.Path = Paths[0]
	}
	if !slices.Contains(Paths, o.Path) {
		return fmt.Errorf("unknown path %q: want one of %s", o.Path, strings.Join(Paths, ","))
	}
	if err := def(&o.Tests, possible(o.Path), "test on path "+o.Path); err != nil {
		return err
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	o.defaults()
	for _, s := range o.Sizes {
		size, err := probe.ParseSize(s)
		if err != nil {
			return err
		}
		if size.GSO && o.Path != "veth" {
			return fmt.Errorf("size %s: not on path %s", s, o.Path)
		}
	}
	for _, f := range o.Flows {
		if f < 1 || f > probe.MaxStations {
			return fmt.Errorf("%d flows: want 1–%d", f, probe.MaxStations)
		}
	}
	if o.Runs < 1 {
		return fmt.Errorf("%d runs: want at least 1, and %d for a ratio", o.Runs, stats.MinPairs)
	}
	o.sort()
	return o.something()
}

func (o *Options) defaults() {
	type defaults struct {
		sizes []string
		flows []int
		runs  int
		trial time.Duration
	}
	d := defaults{probe.StandardSizes, []int{1, 1000, 100_000}, 10, 250 * time.Millisecond}
	if o.Quick {
		d = defaults{[]string{"64", "1518"}, []int{1, 1000}, 2, 80 * time.Millisecond}
	}
	if len(o.Sizes) == 0 {
		o.Sizes = slices.DeleteFunc(slices.Clone(d.sizes), func(s string) bool { return s == "gso" && o.Path != "veth" })
	}
	if len(o.Flows) == 0 {
		o.Flows = d.flows
	}
	if o.Runs == 0 {
		o.Runs = d.runs
	}
	if o.trialLength == 0 {
		o.trialLength = d.trial
	}
	if o.kinds == nil {
		o.kinds = subject.Kinds(o.Path)
	}
}

// sort puts what was asked for into the order in which it is done, once each: the
// first size is the smallest and the first number of flows the lowest, on which
// more is measured than on the others.
func (o *Options) sort() {
	o.Tests = inOrder(o.Tests, func(s string) int { return slices.Index(Tests, s) })
	o.Flows = inOrder(o.Flows, func(n int) int { return n })
	o.Sizes = inOrder(o.Sizes, func(s string) int {
		if n, err := strconv.Atoi(s); err == nil {
			return n
		}
		return probe.MaxSize + 1 + slices.Index(probe.StandardSizes, s)
	})
	for i, s := range o.Sizes {
		if n, err := strconv.Atoi(s); err == nil {
			o.Sizes[i] = strconv.Itoa(n) // 064 is 64
		}
	}
}

// inOrder is the list in ascending order of rank, without doubles.
func inOrder[T comparable](list []T, rank func(T) int) []T {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(rank(a), rank(b)) })
	return slices.CompactFunc(list, func(a, b T) bool { return rank(a) == rank(b) })
}

// entrants are the contenders whose families take part.
func (o *Options) entrants() []subject.Kind {
	return slices.DeleteFunc(slices.Clone(o.kinds), func(k subject.Kind) bool { return !o.enters(k.Family) })
}

// enters reports whether a family takes part.
func (o *Options) enters(family string) bool {
	return !slices.Contains([]string{"ovs", "vde"}, family) || slices.Contains(o.Against, family)
}

// settings are what measurements need to know of complete options.
func (o *Options) settings() trial.Settings {
	return trial.Settings{
		Path: o.Path, Sizes: o.Sizes, Flows: o.Flows, Runs: o.Runs, Length: o.trialLength, Quick: o.Quick, Tests: o.Tests,
	}
}
