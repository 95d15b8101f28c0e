package bridgehelper

import (
	"errors"
	"fmt"
	"strings"
)

// The helper and the switch exchange one packet each way (SOCK_SEQPACKET, so
// that a packet is whole or absent):
//
//	request  "kvs1" flags name            flags: 1 virtio-net header
//	reply    status text                  status 0: text is the tap's name, and
//	                                      its descriptor comes with SCM_RIGHTS;
//	                                      else text says why not
const (
	magic         = "kvs1"
	flagVNet      = 1
	maxSwitchName = 63
	statusDone    = 0
	statusRefused = 1

	MaxRequest = len(magic) + 1 + maxSwitchName // bytes
	MaxReply   = 1 + 1024                       // bytes
)

// AppendRequest adds the packet that asks for a tap to b.
func AppendRequest(b []byte, a Args) []byte {
	b = append(b, magic...)
	flags := byte(0)
	if a.UseVNet {
		flags |= flagVNet
	}
	return append(append(b, flags), a.Bridge...)
}

// ParseRequest reads such a packet. What it returns has no descriptor.
func ParseRequest(b []byte) (Args, error) {
	rest, ok := strings.CutPrefix(string(b), magic)
	if !ok || len(rest) < 2 || len(b) > MaxRequest {
		return Args{}, errors.New("not a request of kvswitch bridge-helper (is it of the same version?)")
	}
	if rest[0]&^flagVNet != 0 {
		return Args{}, fmt.Errorf("unknown flags %#x in request", rest[0])
	}
	return Args{UseVNet: rest[0]&flagVNet != 0, Bridge: rest[1:], FD: -1}, nil
}

// AppendDone adds the packet that a tap's descriptor goes with to b.
func AppendDone(b []byte, tap string) []byte { return appendReply(b, statusDone, tap) }

// AppendRefusal adds the packet that says why there is no tap to b.
func AppendRefusal(b []byte, why string) []byte { return appendReply(b, statusRefused, why) }

// appendReply cuts the text to what a reply may hold and to one line.
func appendReply(b []byte, status byte, text string) []byte {
	text = strings.Join(strings.Fields(text), " ")
	return append(append(b, status), text[:min(len(text), MaxReply-1)]...)
}

// ParseReply reads the tap's name from a reply, or the error that a refusal is.
func ParseReply(b []byte) (tap string, err error) {
	switch {
	case len(b) == 0:
		return "", errors.New("the switch closed the connection without an answer")
	case b[0] == statusDone:
		return string(b[1:]), nil
	}
	return "", errors.New(string(b[1:]))
}
