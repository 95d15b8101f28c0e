package vhostuser

import (
	"encoding/binary"
	"fmt"
)

// fdRule is how many descriptors a request comes with.
type fdRule uint8

const (
	fdsNone  fdRule = iota
	fdsOne          // exactly one
	fdsVring        // one, or none if bit 8 of the payload says so
	fdsTable        // one for each region
	fdsSpare        // at most one, which is closed unused
)

// request is what is known of a request before it is handled: everything that
// can be refused without looking at the device.
type request struct {
	name     string
	min, max int // bytes of payload
	fds      fdRule
	needs    uint64 // protocol feature that must have been negotiated
	handle   func(*device, *message) (reply, error)
}

// reply is what goes back to the front end by itself, REPLY_ACK aside.
type reply struct {
	payload []byte // nil: no reply, unless one was asked for
	always  bool   // reply, even with no payload
	fd      int    // if withFD: goes with it, and is closed afterwards
	withFD  bool
}

func replyU64(v uint64) reply {
	return reply{payload: binary.LittleEndian.AppendUint64(nil, v)}
}

// requests is indexed by the request's number; the gaps are unknown here.
var requests = [...]request{
	reqGetFeatures:         {"GET_FEATURES", 0, 0, fdsNone, 0, (*device).getFeatures},
	reqSetFeatures:         {"SET_FEATURES", 8, 8, fdsNone, 0, (*device).setFeatures},
	reqSetOwner:            {"SET_OWNER", 0, 0, fdsNone, 0, (*device).nothing},
	reqResetOwner:          {"RESET_OWNER", 0, 0, fdsNone, 0, (*device).nothing}, // deprecated: "ignore this message"
	reqSetMemTable:         {"SET_MEM_TABLE", 8, maxPayload, fdsTable, 0, (*device).setMemTable},
	reqSetLogBase:          {"SET_LOG_BASE", 16, 16, fdsOne, protoLogShmfd, (*device).setLogBase},
	reqSetLogFD:            {"SET_LOG_FD", 0, 8, fdsOne, 0, (*device).setLogFD},
	reqSetVringNum:         {"SET_VRING_NUM", 8, 8, fdsNone, 0, (*device).setVringNum},
	reqSetVringAddr:        {"SET_VRING_ADDR", 40, 40, fdsNone, 0, (*device).setVringAddr},
	reqSetVringBase:        {"SET_VRING_BASE", 8, 8, fdsNone, 0, (*device).setVringBase},
	reqGetVringBase:        {"GET_VRING_BASE", 8, 8, fdsNone, 0, (*device).getVringBase},
	reqSetVringKick:        {"SET_VRING_KICK", 8, 8, fdsVring, 0, (*device).setVringKick},
	reqSetVringCall:        {"SET_VRING_CALL", 8, 8, fdsVring, 0, (*device).setVringCall},
	reqSetVringErr:         {"SET_VRING_ERR", 8, 8, fdsVring, 0, (*device).setVringErr},
	reqGetProtocolFeatures: {"GET_PROTOCOL_FEATURES", 0, 0, fdsNone, 0, (*device).getProtocolFeatures},
	reqSetProtocolFeatures: {"SET_PROTOCOL_FEATURES", 8, 8, fdsNone, 0, (*device).setProtocolFeatures},
	reqGetQueueNum:         {"GET_QUEUE_NUM", 0, 0, fdsNone, 0, (*device).getQueueNum},
	reqSetVringEnable:      {"SET_VRING_ENABLE", 8, 8, fdsNone, 0, (*device).setVringEnable},
	reqSendRARP:            {"SEND_RARP", 8, 8, fdsNone, 0, (*device).sendRARP},
	reqNetSetMTU:           {"NET_SET_MTU", 8, 8, fdsNone, 0, (*device).netSetMTU},
	reqGetInflightFD:       {"GET_INFLIGHT_FD", 20, inflightBytes, fdsNone, protoInflight, (*device).getInflightFD},
	reqSetInflightFD:       {"SET_INFLIGHT_FD", 20, inflightBytes, fdsOne, protoInflight, (*device).setInflightFD},
	reqResetDevice:         {"RESET_DEVICE", 0, 0, fdsNone, protoReset, (*device).resetDevice},
	reqGetMaxMemSlots:      {"GET_MAX_MEM_SLOTS", 0, 0, fdsNone, protoMemSlots, (*device).getMaxMemSlots},
	reqAddMemReg:           {"ADD_MEM_REG", 8 + regionBytes, 8 + regionBytes, fdsOne, protoMemSlots, (*device).addMemReg},
	reqRemMemReg:           {"REM_MEM_REG", 8 + regionBytes, 8 + regionBytes, fdsSpare, protoMemSlots, (*device).remMemReg},
	reqSetStatus:           {"SET_STATUS", 8, 8, fdsNone, protoStatus, (*device).setStatus},
	reqGetStatus:           {"GET_STATUS", 0, 0, fdsNone, protoStatus, (*device).getStatus},
}

func requestName(n uint32) string {
	if n < uint32(len(requests)) && requests[n].name != "" {
		return requests[n].name
	}
	return fmt.Sprintf("request %d", n)
}

// find checks everything about a message that can be checked without the
// device's state but the negotiated protocol features. A message whose parts
// don't fit together ends the connection, as errProtocol says.
func (m *message) find(protocol uint64) (*request, error) {
	if m.request >= uint32(len(requests)) || requests[m.request].name == "" {
		return nil, fmt.Errorf("unknown request %d", m.request)
	}
	r := &requests[m.request]
	if n := len(m.payload); n < r.min || n > r.max {
		return nil, fmt.Errorf("%w: %s: payload of %d bytes, want %d to %d", errProtocol, r.name, n, r.min, r.max)
	}
	low, high := 0, 0
	switch r.fds {
	case fdsOne:
		low, high = 1, 1
	case fdsVring:
		if m.u64()&vringNoFD == 0 {
			low, high = 1, 1
		}
	case fdsTable:
		high = maxTableFDs // setMemTable counts
	case fdsSpare:
		high = 1
	}
	if n := len(m.fds); n < low || n > high {
		return nil, fmt.Errorf("%w: %s: %d descriptors, want %d", errProtocol, r.name, n, high)
	}
	if r.needs&^protocol != 0 {
		return nil, fmt.Errorf("%s: protocol feature %s was not negotiated", r.name, names(protocolNames, r.needs)[0])
	}
	return r, nil
}
