package netdev

import (
	"bytes"
	"testing"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

func TestTagsComeBesideTheFrameAndLeaveInIt(t *testing.T) {
	eachWay(t, testTagsComeBesideTheFrameAndLeaveInIt)
}

func testTagsComeBesideTheFrameAndLeaveInIt(t *testing.T) {
	a, b := pair(t, Options{})
	src := mem.MAC(3)
	payload := bytes.Repeat([]byte("tagged "), 12)
	inner := mem.Build(frame.Broadcast, src, frame.MakeTag(0x8100, 3, 42), 0x88b5, payload)
	for _, tag := range []frame.Tag{
		frame.MakeTag(0x8100, 0, 1), frame.MakeTag(0x8100, 0, 0), frame.MakeTag(0x8100, 14, 0), frame.MakeTag(0x8100, 15, 4095),
		frame.MakeTag(0x88a8, 0, 1), frame.MakeTag(0x88a8, 9, 4094), frame.MakeTag(0x88a8, 0, 0),
	} {
		untagged := mem.Build(frame.Broadcast, src, 0, 0x88b5, payload)
		for _, c := range []struct {
			what string
			out  frame.Out
			data []byte // what must come
		}{
			{"put in", frame.Out{Frame: &frame.Frame{Data: untagged}, EgressTag: tag}, untagged},
			{"in band already", frame.Out{Frame: &frame.Frame{Data: mem.Build(frame.Broadcast, src, tag, 0x88b5, payload)}}, untagged},
			{"in place of another", frame.Out{Frame: &frame.Frame{Data: inner, Strip: 4, Tag: frame.MakeTag(0x8100, 3, 42)}, EgressTag: tag}, untagged},
			{"around another", frame.Out{Frame: &frame.Frame{Data: inner}, EgressTag: tag}, inner},
			{"in pieces", frame.Out{Frame: &frame.Frame{Data: untagged[:14], Rest: [][]byte{untagged[14:20], nil, untagged[20:]}}, EgressTag: tag}, untagged},
		} {
			if a.Tx(0, []frame.Out{c.out}) != 1 {
				t.Fatal("no room")
			}
			got := receive(t, b, 1)[0]
			if got.tag != tag || !bytes.Equal(got.data, c.data) {
				t.Errorf("tag %08x %s: came with %08x and % x", uint32(tag), c.what, uint32(got.tag), got.data)
			}
		}
	}
	// Without a tag, and stripped of one.
	for _, o := range []frame.Out{
		{Frame: &frame.Frame{Data: inner, Strip: 4, Tag: frame.MakeTag(0x8100, 3, 42)}},
		{Frame: &frame.Frame{Data: mem.Build(frame.Broadcast, src, 0, 0x88b5, payload), Tag: frame.MakeTag(0x8100, 0, 7)}},
	} {
		a.Tx(0, []frame.Out{o})
		if got := receive(t, b, 1)[0]; got.tag != 0 || !bytes.Equal(got.data, mem.Build(frame.Broadcast, src, 0, 0x88b5, payload)) {
			t.Errorf("untagged: came with %08x and % x", uint32(got.tag), got.data)
		}
	}
	if c := a.Counters(); c.TxErrors != 0 {
		t.Errorf("counters %+v", c)
	}
}

// Offsets in the header count from the frame as the receiver sees it, without
// the tag that comes beside it, and move when a tag goes in band.
func TestOffloadOffsetsExcludeTheTag(t *testing.T) { eachWay(t, testOffloadOffsetsExcludeTheTag) }

func testOffloadOffsetsExcludeTheTag(t *testing.T) {
	a, b := pair(t, Options{})
	tag := frame.MakeTag(0x8100, 0, 5)
	plain := gso(1, 3000)
	inBand := gso(1, 3000)
	inBand.Data = (&frame.Out{Frame: plain.Frame, EgressTag: tag}).AppendWire(nil)
	inBand.Hdr.CsumStart += 4
	inBand.Hdr.HdrLen += 4
	stripped := inBand
	stripped.Frame = &frame.Frame{Data: inBand.Data, Hdr: inBand.Hdr, Strip: 4, Tag: tag}
	for what, c := range map[string]struct {
		out frame.Out
		tag frame.Tag
	}{
		"untagged":           {plain, 0},
		"put in":             {frame.Out{Frame: plain.Frame, EgressTag: tag}, tag},
		"in band, untouched": {inBand, tag},
		"taken out":          {stripped, 0},
		"replaced":           {frame.Out{Frame: stripped.Frame, EgressTag: tag.WithVID(9)}, tag.WithVID(9)},
	} {
		a.Tx(0, []frame.Out{c.out})
		got := receive(t, b, 1)[0]
		if got.tag != c.tag || got.hdr.CsumStart != 34 || got.hdr.CsumOffset != 16 || got.hdr.GSOSize != 1448 || !bytes.Equal(got.data, plain.Data) {
			t.Errorf("%s: tag %08x header %+v, %d bytes", what, uint32(got.tag), got.hdr, len(got.data))
		}
	}
}
