package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/kvswitch/kvswitch/bench/stats"
)

// String names the case in a few words.
func (c Case) String() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if c.Size != "" {
		if _, err := strconv.Atoi(c.Size); err == nil {
			add("%s bytes", c.Size)
		} else {
			add("%s", c.Size)
		}
	}
	if c.Flows > 1 {
		add("%s flows", count(c.Flows))
	}
	if c.Ports > 2 {
		add("%d ports", c.Ports)
	}
	if c.Addresses > 0 {
		add("%s addresses", count(c.Addresses))
	}
	if c.Workers > 0 {
		add("%s", plural(c.Workers, "worker"))
	}
	switch c.Source {
	case "", "af_packet", "tap", "virtio", "memory":
	case "xdp":
		add("XDP live frames")
	case "dpdk":
		add("DPDK guests, both directions")
	default:
		add("%s", strings.ToUpper(c.Source))
	}
	if c.Load != "" && c.Load != "full" {
		add("%s", c.Load)
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, ", ")
}

// ExchangeText says how far apart the processors were.
func (r *Report) ExchangeText() string {
	if len(r.Exchanges) == 0 {
		return "not measured"
	}
	xs := make([]float64, len(r.Exchanges))
	for i, e := range r.Exchanges {
		xs[i] = e.NS
	}
	return fmt.Sprintf("%.0f ns for a cache line (%.0f–%.0f in %s)",
		stats.Median(xs), slices.Min(xs), slices.Max(xs), plural(len(xs), "look"))
}

// StealText says what is known of time that the hypervisor took.
func (r *Report) StealText() string {
	switch {
	case !r.Machine.Hypervisor:
		return "no hypervisor that could steal time"
	case r.Steal == 0:
		return "this hypervisor reports no steal: trials that it disturbed can't be told"
	}
	return fmt.Sprintf("stolen by the hypervisor since boot: %.1f s", r.Steal)
}

// settings are those of a contender's namespace and ports, in one line.
func (c *Contender) settings() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(c.Settings)) {
		parts = append(parts, k+": "+c.Settings[k])
	}
	return strings.Join(parts, "; ")
}

func plural(n int, what string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// count is a number in groups of three: 100 000.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:] // narrow no-break space
	}
	return s
}

// Format writes a value of a unit with three significant digits: "643 k",
// "10.4 µs", "23.1 Gbit/s".
func Format(v float64, unit string) string {
	switch unit {
	case "ns":
		return scaled(v, []string{"ns", "µs", "ms", "s"})
	case "ns/frame":
		return digits(v) + " ns"
	case "bit/s":
		return scaled(v, []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"})
	case "frame/s":
		return strings.TrimSpace(scaled(v, []string{"", "k", "M", "G"}))
	case "1":
		return digits(100*v) + " %"
	}
	return strings.TrimSpace(scaled(v, []string{"", "k", "M", "G"}))
}

// figure is a series' median, or that it has none.
func (s *Series) figure() string {
	if len(s.Values) == 0 {
		return "–"
	}
	return Format(s.Median, s.Unit)
}

func scaled(v float64, prefixes []string) string {
	i := 0
	for math.Abs(v) >= 999.5 && i < len(prefixes)-1 {
		v /= 1000
		i++
	}
	return digits(v) + " " + prefixes[i]
}

func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95 || a == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// against is a series' ratio, or what stands in its place.
func (r *Report) against(s *Series) string {
	switch {
	case len(s.Values) == 0:
		return "disturbed"
	case s.Contender == r.Refer:
		return "reference"
	}
	return s.Ratio.String()
}

// String is the ratio with its interval, or the reason why not.
func (r *Ratio) String() string {
	switch {
	case r == nil:
		return ""
	case r.Withheld != "":
		return r.Withheld
	}
	return fmt.Sprintf("×%.2f [%.2f–%.2f]", r.Median, r.Low, r.High)
}
