package bench

import (
	"slices"
	"strings"
	"testing"
)

func TestListsAreSortedAndHoldNothingTwice(t *testing.T) {
	o := Options{
		Sizes: []string{"gso", "1518", "imix", "064", "64"}, Flows: []int{1000, 1, 1000},
		Tests: []string{"bulk", "throughput", "bulk"},
	}
	given := slices.Clone(o.Sizes)
	mine := o.Sizes
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.Sizes, []string{"64", "1518", "imix", "gso"}) || !slices.Equal(o.Flows, []int{1, 1000}) ||
		!slices.Equal(o.Tests, []string{"throughput", "bulk"}) {
		t.Errorf("sizes %v, flows %v, tests %v", o.Sizes, o.Flows, o.Tests)
	}
	if !slices.Equal(mine, given) {
		t.Errorf("the caller's list became %v", mine)
	}
}

func TestWhatIsNotMeasuredIsSaid(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    Options
		want []string // in the remarks, one each
	}{
		{"defaults", Options{}, nil},
		{"quick", Options{Quick: true}, nil},
		{"vm", Options{Path: "vm"}, nil},
		{"vm, sizes", Options{Path: "vm", Sizes: []string{"64"}}, []string{"sizes play no part"}},
		{"tap", Options{Path: "tap"}, []string{"no plain cable"}},
		{"one-way latency", Options{Tests: []string{"latency"}, Sizes: []string{"imix"}}, []string{"one-way latency"}},
		{"searches", Options{Tests: []string{"throughput"}, Sizes: []string{"gso"}}, []string{"without loss"}},
		{"equal load", Options{Tests: []string{"throughput"}, Flows: []int{1000}}, []string{"take 1 flow"}},
		{"bulk", Options{Tests: []string{"bulk"}, Sizes: []string{"64"}, Flows: []int{1}}, []string{"sizes play no part in bulk", "flows play no part in bulk"}},
		{"not there", Options{Path: "vhost-user", Tests: []string{"latency"}, Against: []string{"vde", "ovs"}},
			[]string{"ovs does not race on path vhost-user", "vde does not race on path vhost-user"}},
	} {
		if err := tc.o.complete(); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		gaps := tc.o.gaps()
		ok := len(gaps) == len(tc.want)
		for i := range min(len(gaps), len(tc.want)) {
			ok = ok && strings.Contains(gaps[i], tc.want[i])
		}
		if !ok {
			t.Errorf("%s: remarks %q, want %q", tc.name, gaps, tc.want)
		}
	}
}

func TestARunOfNothingIsRefused(t *testing.T) {
	o := Options{Path: "tap", Tests: []string{"latency"}, Sizes: []string{"imix"}}
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "nothing to measure") {
		t.Errorf("error %v", err)
	}
}
