package frame

import (
	"reflect"
	"testing"
)

// A Frame is one cache line, and a batch of them 4 KiB, as their comments say.
func TestFrameIsOneCacheLine(t *testing.T) {
	if n := reflect.TypeFor[Frame]().Size(); n != 64 {
		t.Errorf("a Frame is %d bytes", n)
	}
	if n := reflect.TypeFor[[BatchSize]Frame]().Size(); n != 4<<10 {
		t.Errorf("a batch of Frames is %d bytes", n)
	}
}
