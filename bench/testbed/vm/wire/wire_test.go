package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"testing"
)

func TestMessagesComeBackAsTheyWent(t *testing.T) {
	var line bytes.Buffer
	c := NewConn(&line)
	sent := []Request{
		{ID: 1, Op: OpRun, Command: "echo 'a\n\"b\"'"},
		{ID: 2, Op: OpPut, Path: "/x", Mode: 0o755, Data: []byte{0, 0xff, '\n'}},
		{Op: OpKill, Target: 1},
	}
	for _, r := range sent {
		if err := c.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range sent {
		var got Request
		if err := c.Read(&got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	if err := c.Read(&Request{}); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestBrokenStreams(t *testing.T) {
	frame := func(n uint32, body string) string {
		return string(binary.LittleEndian.AppendUint32(nil, n)) + body
	}
	for name, stream := range map[string]string{
		"half a length":  "\x01\x00",
		"half a message": frame(10, "{}"),
		"no message":     frame(10, ""),
		"too long":       frame(MaxMessage+1, "{}"),
		"no JSON":        frame(3, "abc"),
	} {
		err := NewConn(bytes.NewBufferString(stream)).Read(&Reply{})
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00{}"))
	f.Add([]byte("\x02\x00"))
	f.Add([]byte("\x0a\x00\x00\x00{\"id\":1}  \x02"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		c := NewConn(bytes.NewBuffer(stream))
		for range len(stream)/4 + 1 {
			if c.Read(&Reply{}) != nil {
				return
			}
		}
		t.Error("more messages than fit")
	})
}
