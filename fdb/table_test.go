package fdb

import "testing"

func TestStationIsFoundWhereItWasLearned(t *testing.T) {
	tb := New(0, DefaultAgeing)
	k := MakeKey([6]byte{0x52, 0x54, 0, 1, 2, 3}, 7)
	if _, ok := tb.Lookup(k); ok {
		t.Fatal("found in an empty table")
	}
	d := Dest{Port: 3, Gen: tb.Gen(3)}
	if r, _ := tb.Learn(k, d); r != Added {
		t.Fatalf("first Learn = %v, want added", r)
	}
	if got, ok := tb.Lookup(k); !ok || got != d {
		t.Fatalf("Lookup = %v %v, want %v", got, ok, d)
	}
	if r, prev := tb.Learn(k, Dest{Port: 4, Gen: tb.Gen(4)}); r != Moved || prev != 3 {
		t.Fatalf("Learn elsewhere = %v from %d, want moved from 3", r, prev)
	}
	tb.Flush(4)
	if _, ok := tb.Lookup(k); ok {
		t.Fatal("found after the port was flushed")
	}
	if n := tb.Len(); n != 0 {
		t.Fatalf("Len = %d after the flush", n)
	}
}
