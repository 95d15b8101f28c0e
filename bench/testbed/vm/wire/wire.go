// Package wire is what a test and the agent inside its guest say to each other:
// JSON messages, each after its length, over the byte stream of a virtio-serial
// port.
//
// Requests carry a number and are answered in any order. A Conn may be written
// by any goroutine and is read by one.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Port is the name of the virtio-serial port.
const Port = "org.kvswitch.agent"

// MaxMessage bounds a message: enough for a file of some MiB, little enough
// that a garbled length is noticed.
const MaxMessage = 64 << 20

// Operations.
const (
	OpRun  = "run"  // Command by sh -c; answered when the shell ends
	OpKill = "kill" // end the Run with number Target
	OpPut  = "put"  // write Data to Path with Mode
	OpGet  = "get"  // read Path
)

// Request is what the test asks. With ID 0 it is not answered.
type Request struct {
	ID      uint64 `json:"id"`
	Op      string `json:"op"`
	Command string `json:"command,omitempty"`
	Target  uint64 `json:"target,omitempty"`
	Path    string `json:"path,omitempty"`
	Mode    uint32 `json:"mode,omitempty"`
	Data    []byte `json:"data,omitempty"`
}

// Reply is what the agent answers. The first one, with ID 0, says that the
// guest has booted.
type Reply struct {
	ID    uint64 `json:"id"`
	Data  []byte `json:"data,omitempty"`  // output of Run, content of Get
	Code  int    `json:"code,omitempty"`  // exit status of Run; 128 + signal if killed
	Error string `json:"error,omitempty"` // the operation itself failed
}

// Conn frames messages over a byte stream.
type Conn struct {
	rw io.ReadWriter
	mu sync.Mutex
}

// NewConn wraps a byte stream.
func NewConn(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Write sends v as one message.
func (c *Conn) Write(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > MaxMessage {
		return fmt.Errorf("message of %d bytes: at most %d", len(body), MaxMessage)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err = c.rw.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// Read waits for the next message. io.EOF is the end of the stream between two
// messages.
func (c *Conn) Read(v any) error {
	var head [4]byte
	if _, err := io.ReadFull(c.rw, head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > MaxMessage {
		return fmt.Errorf("message of %d bytes: at most %d", n, MaxMessage)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.rw, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}
