package frame

import (
	"bytes"
	"slices"
	"testing"
)

func TestHeadAndRestAreTheFrameOnTheWire(t *testing.T) {
	untagged := slices.Concat(bytes.Repeat([]byte{1}, 6), bytes.Repeat([]byte{2}, 6), []byte{8, 0}, bytes.Repeat([]byte{3}, 300))
	tagged := slices.Insert(slices.Clone(untagged), 12, 0x81, 0, 0, 7)
	hdr := VnetHdr{Flags: HdrNeedsCsum, GSOType: GSOTCPv4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	for name, o := range map[string]Out{
		"untouched":       {Frame: &Frame{Data: untagged, Hdr: hdr}},
		"tag put in":      {Frame: &Frame{Data: untagged, Hdr: hdr}, EgressTag: MakeTag(0x88a8, 3, 9)},
		"tag in band":     {Frame: &Frame{Data: tagged, Hdr: hdr}},
		"tag taken out":   {Frame: &Frame{Data: tagged, Hdr: hdr, Strip: 4, Tag: MakeTag(0x8100, 0, 7)}},
		"tag replaced":    {Frame: &Frame{Data: tagged, Hdr: hdr, Strip: 4, Tag: MakeTag(0x8100, 0, 7)}, EgressTag: MakeTag(0x8100, 0, 8)},
		"in pieces":       {Frame: &Frame{Data: untagged[:14], Rest: [][]byte{untagged[14:]}}, EgressTag: MakeTag(0x8100, 0, 8)},
		"nothing but MAC": {Frame: &Frame{Data: untagged[:14]}},
	} {
		prefix := []byte("kept")
		head, rest := o.Head(prefix)
		if !bytes.HasPrefix(head, prefix) || len(head)-len(prefix) > MaxHead {
			t.Errorf("%s: head of %d bytes % x", name, len(head), head)
		}
		head = head[len(prefix):]
		if want := o.WireHdr(); ReadVnetHdr(head) != want {
			t.Errorf("%s: header %+v, want %+v", name, ReadVnetHdr(head), want)
		}
		wire := append(slices.Clone(head[VnetHdrLen:]), rest...)
		for _, r := range o.Rest {
			wire = append(wire, r...)
		}
		if want := o.AppendWire(nil); !bytes.Equal(wire, want) {
			t.Errorf("%s: % x, want % x", name, wire[:30], want[:30])
		}
	}
}

func TestHeadCutsTheHeaderLengthToWhatAKernelTakes(t *testing.T) {
	data := make([]byte, 1000)
	for _, c := range []struct {
		o    Out
		want uint16
	}{
		{Out{Frame: &Frame{Data: data, Hdr: VnetHdr{HdrLen: 54}}}, 54},
		{Out{Frame: &Frame{Data: data, Hdr: VnetHdr{HdrLen: 65535}}}, maxLinear},
		{Out{Frame: &Frame{Data: data[:60], Hdr: VnetHdr{HdrLen: 65535}}}, 60},
		{Out{Frame: &Frame{Data: data[:14], Rest: [][]byte{data}, Hdr: VnetHdr{HdrLen: 54}}}, 14},
		{Out{Frame: &Frame{Data: data[:60], Hdr: VnetHdr{HdrLen: 60}, Strip: 4}}, 56},
	} {
		head, _ := c.o.Head(nil)
		if got := ReadVnetHdr(head).HdrLen; got != c.want {
			t.Errorf("header length %d of a frame of %d bytes became %d, want %d", c.o.Hdr.HdrLen, c.o.Frame.Len(), got, c.want)
		}
	}
}

func TestHeadDoesNotAllocate(t *testing.T) {
	o := Out{Frame: &Frame{Data: make([]byte, 60)}, EgressTag: MakeTag(0x8100, 0, 8)}
	b := make([]byte, 0, MaxHead)
	if n := testing.AllocsPerRun(100, func() { o.Head(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
