package probe

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// MinSize and MaxSize bound a frame size as RFC 2544 counts it: with the
	// frame check sequence.
	MinSize = 64
	MaxSize = 1518
	fcsLen  = 4
	// gsoLen is the length of a segmentation super-frame: the largest IP packet
	// that is a whole number of segments of gsoSegment bytes.
	gsoSegment = 1448
	gsoLen     = gsoHeader + 45*gsoSegment
)

// StandardSizes are those of RFC 2544 section 9.1, then a mix and offloaded
// super-frames.
var StandardSizes = []string{"64", "128", "256", "512", "1024", "1280", "1518", "imix", "gso"}

// Size is what a trial sends: one length, or several in turn.
type Size struct {
	// Name is as given on the command line: a number of bytes with the frame
	// check sequence, "imix" or "gso".
	Name string
	// Lengths are those of the frames as handed to the kernel (without frame
	// check sequence), in sending order, repeated.
	Lengths []int
	// GSO marks unsegmented TCP frames that travel with a virtio-net header.
	GSO bool
}

// ParseSize reads one size.
func ParseSize(s string) (Size, error) {
	switch s {
	case "imix":
		// The simple mix of RFC 6985's predecessors: 7 × 64, 4 × 594, 1 × 1518,
		// spread out so that no part of the period is all small or all large.
		seven, four, one := MinSize-fcsLen, 594-fcsLen, MaxSize-fcsLen
		return Size{Name: s, Lengths: []int{
			seven, four, seven, seven, four, seven, one, seven, four, seven, four, seven,
		}}, nil
	case "gso":
		return Size{Name: s, Lengths: []int{gsoLen}, GSO: true}, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < MinSize || n > MaxSize {
		return Size{}, fmt.Errorf("parse frame size %q: want %d–%d, imix or gso", s, MinSize, MaxSize)
	}
	return Size{Name: s, Lengths: []int{n - fcsLen}}, nil
}

// Smallest is the smallest size, 64 bytes with frame check sequence.
func Smallest() Size { return Size{Name: strconv.Itoa(MinSize), Lengths: []int{MinSize - fcsLen}} }

// Plain reports the name of a size that is a number of bytes.
func Plain(name string) bool { return name != "imix" && name != "gso" }

// ParseSizes reads a comma-separated list, in its order.
func ParseSizes(list string) ([]Size, error) {
	var sizes []Size
	for s := range strings.SplitSeq(list, ",") {
		size, err := ParseSize(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

// String is the size in words: "64 bytes", "mixed sizes".
func (s Size) String() string {
	if s.Name == "imix" {
		return "mixed sizes"
	}
	return s.Name + " bytes"
}

// MeanLength is the mean length of a frame of this size, in bytes without frame
// check sequence.
func (s Size) MeanLength() float64 {
	sum := 0
	for _, n := range s.Lengths {
		sum += n
	}
	return float64(sum) / float64(len(s.Lengths))
}

// MaxLength is the longest frame of this size.
func (s Size) MaxLength() int {
	longest := 0
	for _, n := range s.Lengths {
		longest = max(longest, n)
	}
	return longest
}

// Segments is how many frames on a wire one of this size stands for.
func (s Size) Segments() int {
	if s.GSO {
		return (gsoLen - gsoHeader) / gsoSegment
	}
	return 1
}
