package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Requests of the front end (vhost-user, "Front-end message types").
const (
	reqGetFeatures         = 1
	reqSetFeatures         = 2
	reqSetOwner            = 3
	reqResetOwner          = 4
	reqSetMemTable         = 5
	reqSetLogBase          = 6
	reqSetLogFD            = 7
	reqSetVringNum         = 8
	reqSetVringAddr        = 9
	reqSetVringBase        = 10
	reqGetVringBase        = 11
	reqSetVringKick        = 12
	reqSetVringCall        = 13
	reqSetVringErr         = 14
	reqGetProtocolFeatures = 15
	reqSetProtocolFeatures = 16
	reqGetQueueNum         = 17
	reqSetVringEnable      = 18
	reqSendRARP            = 19
	reqNetSetMTU           = 20
	reqGetInflightFD       = 31
	reqSetInflightFD       = 32
	reqResetDevice         = 34
	reqGetMaxMemSlots      = 36
	reqAddMemReg           = 37
	reqRemMemReg           = 38
	reqSetStatus           = 39
	reqGetStatus           = 40
)

const (
	headerBytes    = 12 // request, flags, size
	maxTableFDs    = 8  // regions of SET_MEM_TABLE, the most descriptors any message has
	maxMemSlots    = 509
	regionBytes    = 32
	inflightBytes  = 24 // 20 and the padding of the C structure
	maxPayload     = 8 + maxTableFDs*regionBytes
	flagVersion    = 1 // in the lowest two bits
	flagVersionAll = 3
	flagReply      = 1 << 2
	flagNeedReply  = 1 << 3
	vringIndexMask = 0xff   // in the u64 of KICK, CALL and ERR
	vringNoFD      = 1 << 8 // no descriptor comes with it
	vringFlagLog   = 1 << 0 // VHOST_VRING_F_LOG: the used ring is logged, too
)

// header is what every message starts with. All numbers are in the byte order of
// the machine, which is little-endian wherever the switch runs.
type header struct {
	request uint32
	flags   uint32
	size    uint32 // of the payload
}

// message is a request with the descriptors that came with it. Whoever handles
// it closes those, or makes them -1 when it keeps them.
type message struct {
	header
	payload []byte
	fds     []int
}

// errProtocol marks what ends a connection: where the next message begins can't be
// known any more, or the front end does what none does by mistake.
var errProtocol = errors.New("protocol violation")

// parseHeader decodes and checks a message's first headerBytes bytes.
func parseHeader(b []byte) (header, error) {
	h := header{
		binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]),
	}
	if v := h.flags & flagVersionAll; v != flagVersion {
		return h, fmt.Errorf("%w: message version %d, want %d", errProtocol, v, flagVersion)
	}
	if h.flags&flagReply != 0 {
		return h, fmt.Errorf("%w: %s: a reply where a request belongs", errProtocol, requestName(h.request))
	}
	if h.size > maxPayload {
		return h, fmt.Errorf("%w: %s: payload of %d bytes, at most %d fit", errProtocol, requestName(h.request), h.size, maxPayload)
	}
	return h, nil
}

// appendMessage encodes a message without descriptors.
func appendMessage(b []byte, request, flags uint32, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, request)
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// Payloads. The length was checked against the request's before.

func (m *message) u64() uint64 { return binary.LittleEndian.Uint64(m.payload) }

// vringState is index and num of a ring.
type vringState struct{ index, num uint32 }

func (m *message) vringState() vringState {
	return vringState{binary.LittleEndian.Uint32(m.payload), binary.LittleEndian.Uint32(m.payload[4:])}
}

func (s vringState) append(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, s.index), s.num)
}

// vringAddr says where a ring's areas are, in the front end's address space, and
// where in the dirty log its used ring is.
type vringAddr struct {
	index, flags           uint32
	desc, used, avail, log uint64
}

func (m *message) vringAddr() vringAddr {
	p := m.payload
	return vringAddr{
		binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:]),
		binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[16:]),
		binary.LittleEndian.Uint64(p[24:]), binary.LittleEndian.Uint64(p[32:]),
	}
}

// memRegion is one region of guest memory: size bytes at offset of a file.
type memRegion struct{ guest, size, user, offset uint64 }

func parseRegion(p []byte) memRegion {
	return memRegion{
		binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:]),
		binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[24:]),
	}
}

// memTable decodes SET_MEM_TABLE: a count, padding, and that many regions, each
// with a descriptor. Old front ends send all eight slots.
func (m *message) memTable() ([]memRegion, error) {
	n := binary.LittleEndian.Uint32(m.payload)
	if n > maxTableFDs || len(m.payload) < 8+int(n)*regionBytes {
		return nil, fmt.Errorf("%d regions in %d bytes, at most %d", n, len(m.payload), maxTableFDs)
	}
	if int(n) != len(m.fds) {
		return nil, fmt.Errorf("%d regions with %d descriptors", n, len(m.fds))
	}
	regions := make([]memRegion, n)
	for i := range regions {
		regions[i] = parseRegion(m.payload[8+i*regionBytes:])
	}
	return regions, nil
}

// inflightArea describes the buffer of GET_ and SET_INFLIGHT_FD.
type inflightArea struct {
	size, offset      uint64
	queues, queueSize uint16
}

func (m *message) inflightArea() inflightArea {
	p := m.payload
	return inflightArea{
		binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:]),
		binary.LittleEndian.Uint16(p[16:]), binary.LittleEndian.Uint16(p[18:]),
	}
}

func (a inflightArea) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, a.size)
	b = binary.LittleEndian.AppendUint64(b, a.offset)
	b = binary.LittleEndian.AppendUint16(b, a.queues)
	b = binary.LittleEndian.AppendUint16(b, a.queueSize)
	return append(b, 0, 0, 0, 0)
}
