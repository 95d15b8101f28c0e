package qemu

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
	helperMagic   = "kvs1"
	flagVNet      = 1
	maxSwitchName = 63
	maxRequest    = len(helperMagic) + 1 + maxSwitchName
	maxReply      = 1 + 1024
	statusDone    = 0
	statusRefused = 1
)

func appendRequest(b []byte, a HelperArgs) []byte {
	b = append(b, helperMagic...)
	flags := byte(0)
	if a.UseVNet {
		flags |= flagVNet
	}
	return append(append(b, flags), a.Bridge...)
}

func parseRequest(b []byte) (HelperArgs, error) {
	rest, ok := strings.CutPrefix(string(b), helperMagic)
	if !ok || len(rest) < 2 || len(b) > maxRequest {
		return HelperArgs{}, errors.New("not a request of kvswitch bridge-helper (is it of the same version?)")
	}
	if rest[0]&^flagVNet != 0 {
		return HelperArgs{}, fmt.Errorf("unknown flags %#x in request", rest[0])
	}
	return HelperArgs{UseVNet: rest[0]&flagVNet != 0, Bridge: rest[1:], FD: -1}, nil
}

// appendReply cuts the text to what a reply may hold and to one line.
func appendReply(b []byte, status byte, text string) []byte {
	text = strings.Join(strings.Fields(text), " ")
	return append(append(b, status), text[:min(len(text), maxReply-1)]...)
}

func parseReply(b []byte) (tap string, err error) {
	switch {
	case len(b) == 0:
		return "", errors.New("the switch closed the connection without an answer")
	case b[0] == statusDone:
		return string(b[1:]), nil
	}
	return "", errors.New(string(b[1:]))
}
