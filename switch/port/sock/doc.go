// Package sock gives the switch ports that are plain sockets, so that a
// virtual machine can be attached without any privilege: Stream speaks to
// QEMU's `-netdev stream`, Dgram to its `-netdev dgram` (QEMU 7.2 and later).
//
// On the wire a stream carries each frame behind its length, four bytes,
// big-endian; a datagram is one frame and nothing else. Neither has a
// virtio-net header, so both ports report no offloads and the switch finishes
// checksums and segments before it hands frames over.
//
// The package does not encrypt, authenticate or resend. Whoever may open the
// socket file, or reach the TCP or UDP address, may send frames: keep paths at
// mode 0600 (the default) and addresses on the loopback or a trusted network.
//
// A port never blocks its caller. What a slow peer does not read is dropped in
// whole frames and counted, and no other port notices. What a lying peer sends
// costs that connection, with the reason in State and Detail.
//
// Tx, State, Counters and Detail may be called from any goroutine; Rx, Release
// and Arm from the one worker that drives the queue. Each port runs one
// goroutine of its own, which opens and closes connections and touches no
// frame.
package sock
