package vhostuser

import "github.com/kvswitch/kvswitch/switch/frame"

// Feature bits of virtio and vhost (virtio 1.2, 5.1.3 and 6; vhost-user,
// "Migration" and "Communication").
const (
	featCsum          uint64 = 1 << 0 // the guest may send unfinished checksums
	featGuestCsum     uint64 = 1 << 1 // and may be sent them
	featMTU           uint64 = 1 << 3
	featGuestTSO4     uint64 = 1 << 7
	featGuestTSO6     uint64 = 1 << 8
	featGuestECN      uint64 = 1 << 9
	featHostTSO4      uint64 = 1 << 11
	featHostTSO6      uint64 = 1 << 12
	featHostECN       uint64 = 1 << 13
	featMrgRxbuf      uint64 = 1 << 15
	featCtrlVQ        uint64 = 1 << 17
	featCtrlRx        uint64 = 1 << 18
	featGuestAnnounce uint64 = 1 << 21
	featMQ            uint64 = 1 << 22
	featLogAll        uint64 = 1 << 26
	featAnyLayout     uint64 = 1 << 27
	featIndirect      uint64 = 1 << 28
	featProtocol      uint64 = 1 << 30
	featVersion1      uint64 = 1 << 32
	featInOrder       uint64 = 1 << 35
	featGuestUSO4     uint64 = 1 << 54
	featGuestUSO6     uint64 = 1 << 55
	featHostUSO       uint64 = 1 << 56
)

// offeredFeatures is what any port offers. The control queue is the front end's
// affair: it answers it, and CTRL_VQ and CTRL_RX here only let it do so. Rings
// are used in order, always. Not offered: EVENT_IDX and RING_PACKED (package
// virtq says why), IOMMU_PLATFORM, and UFO, which no port of the switch takes.
const offeredFeatures = featCsum | featGuestCsum | featMTU |
	featGuestTSO4 | featGuestTSO6 | featGuestECN | featGuestUSO4 | featGuestUSO6 |
	featHostTSO4 | featHostTSO6 | featHostECN | featHostUSO |
	featMrgRxbuf | featCtrlVQ | featCtrlRx | featGuestAnnounce |
	featLogAll | featAnyLayout | featIndirect | featProtocol | featVersion1 | featInOrder

// Protocol feature bits (vhost-user, "Protocol features").
const (
	protoMQ       uint64 = 1 << 0
	protoLogShmfd uint64 = 1 << 1
	protoRARP     uint64 = 1 << 2
	protoReplyAck uint64 = 1 << 3
	protoMTU      uint64 = 1 << 4
	protoBackReq  uint64 = 1 << 5
	protoInflight uint64 = 1 << 12
	protoReset    uint64 = 1 << 13
	protoInBand   uint64 = 1 << 14
	protoMemSlots uint64 = 1 << 15
	protoStatus   uint64 = 1 << 16
)

// offeredProtocol leaves out what needs a channel to the front end, postcopy
// migration, and device configuration, which for a network device is the front
// end's.
const offeredProtocol = protoMQ | protoLogShmfd | protoRARP | protoReplyAck | protoMTU |
	protoInflight | protoReset | protoMemSlots | protoStatus

var featureNames = []struct {
	bit  uint64
	name string
}{
	{featCsum, "csum"}, {featGuestCsum, "guest_csum"}, {featMTU, "mtu"},
	{featGuestTSO4, "guest_tso4"}, {featGuestTSO6, "guest_tso6"}, {featGuestECN, "guest_ecn"},
	{featHostTSO4, "host_tso4"}, {featHostTSO6, "host_tso6"}, {featHostECN, "host_ecn"},
	{featMrgRxbuf, "mrg_rxbuf"}, {featCtrlVQ, "ctrl_vq"}, {featCtrlRx, "ctrl_rx"},
	{featGuestAnnounce, "guest_announce"}, {featMQ, "mq"}, {featLogAll, "log_all"},
	{featAnyLayout, "any_layout"}, {featIndirect, "indirect_desc"}, {featProtocol, "protocol_features"},
	{featVersion1, "version_1"}, {featInOrder, "in_order"},
	{featGuestUSO4, "guest_uso4"}, {featGuestUSO6, "guest_uso6"}, {featHostUSO, "host_uso"},
}

var protocolNames = []struct {
	bit  uint64
	name string
}{
	{protoMQ, "mq"}, {protoLogShmfd, "log_shmfd"}, {protoRARP, "rarp"}, {protoReplyAck, "reply_ack"},
	{protoMTU, "mtu"}, {protoInflight, "inflight_shmfd"}, {protoReset, "reset_device"},
	{protoMemSlots, "configure_mem_slots"}, {protoStatus, "status"},
}

// names lists the bits of v by name, in the order of the table.
func names(table []struct {
	bit  uint64
	name string
}, v uint64) []string {
	list := []string{}
	for _, t := range table {
		if v&t.bit != 0 {
			list = append(list, t.name)
		}
	}
	return list
}

// headerLen is the length of struct virtio_net_hdr as these features make it
// (virtio 1.2, 5.1.6.1): num_buffers is there unless the driver is a legacy one
// that did not ask for mergeable buffers.
func headerLen(features uint64) int {
	if features&(featVersion1|featMrgRxbuf) != 0 {
		return frame.VnetHdrMrgRxbufLen
	}
	return frame.VnetHdrLen
}

// guestTakes is what a guest with these features may be sent unfinished.
func guestTakes(features uint64) frame.Offloads {
	return offloads(features, featGuestCsum, featGuestTSO4, featGuestTSO6, featGuestUSO4|featGuestUSO6)
}

// guestSends is what a guest with these features may send unfinished.
func guestSends(features uint64) frame.Offloads {
	return offloads(features, featCsum, featHostTSO4, featHostTSO6, featHostUSO)
}

// offloads is what features allow in one direction, whose bits the others are.
// Segmentation needs the checksum's (virtio 1.2, 5.1.3.1).
func offloads(features, csum, tso4, tso6, uso uint64) frame.Offloads {
	all := func(bits uint64) bool { return features&bits == bits }
	return frame.Offloads{Csum: all(csum), TSO4: all(csum | tso4), TSO6: all(csum | tso6), USO: all(csum | uso)}
}
