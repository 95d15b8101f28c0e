package vhostuser

import (
	"encoding/binary"

	"github.com/kvswitch/kvswitch/switch/frame"
)

// rarpLen is the least length of an Ethernet frame, without its check sequence.
const rarpLen = 60

// announceRARP has the queue lend a broadcast RARP request with a guest's
// address, so that bridges learn where the guest is now (vhost-user, SEND_RARP;
// RFC 903: opcode 3, "request reverse", for itself).
func (q *queue) announceRARP(mac frame.MAC) {
	const (
		etherTypeRARP  = 0x8035
		hardwareEther  = 1
		requestReverse = 3
	)
	b := make([]byte, 0, rarpLen)
	b = append(b, frame.Broadcast[:]...)
	b = append(b, mac[:]...)
	b = binary.BigEndian.AppendUint16(b, etherTypeRARP)
	b = binary.BigEndian.AppendUint16(b, hardwareEther)
	b = binary.BigEndian.AppendUint16(b, frame.EtherTypeIPv4)
	b = append(b, 6, 4) // address lengths
	b = binary.BigEndian.AppendUint16(b, requestReverse)
	b = append(b, mac[:]...)
	b = append(b, 0, 0, 0, 0)
	b = append(b, mac[:]...)

	q.mu.Lock() // it may be lent
	q.rarp = [rarpLen]byte(b[:rarpLen])
	q.mu.Unlock()
	q.announce.Store(true)
	q.bell.ring()
}
