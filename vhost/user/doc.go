// Package vhostuser attaches guests by vhost-user: the back end of the protocol,
// as a frame.Port whose frames are read from and written to guest memory without
// a kernel in between. A frame from guest to guest is copied once, from the
// sender's buffer to the receiver's.
//
// It does split rings, mergeable buffers, checksum and segmentation offload
// passed through as it is, several queue pairs, hot-plugged memory, restarts of
// either side, and live migration with a dirty log. It leaves to the front end
// (QEMU) the device's configuration space and control queue, and offers neither
// packed rings, EVENT_IDX, an IOMMU nor postcopy migration. It never completes a
// checksum or cuts a segment: what a guest can't be sent is the switch's to
// finish first, as State().Offloads says.
//
// What a guest or its front end does wrong stays with its own port. A chain that
// is wrong costs that chain; a ring that is wrong, or memory that is taken away,
// costs the port its link, with the reason in State, until the front end sets it
// up again; a message that makes no sense costs the connection. Files and eventfds
// are taken only where their owner can't keep the switch waiting. What ports do
// share:
//   - a worker's time: a guest gets a batch of it at a time, bad chains included
//     (maxWork);
//   - address space and mappings: each port has a limit, and so have all ports
//     together, which 32 guests of the largest size use up (share.go);
//   - the memory that the kernel accounts to the switch: that includes each page of
//     a guest that the switch is the first to touch;
//   - a thread and a descriptor for a file whose server does not let it be closed
//     (discard), at most one at a time for each open port;
//   - where the kernel has no asynchronous I/O, or a sandbox forbids it, the worker
//     itself, which a front end can put to sleep by making its eventfd a blocking
//     one and filling it (sysio.Signal).
//
// The methods of Port may be called from any goroutine, each Queue from one at a
// time. A port has two goroutines of its own, for the socket and for rings that
// workers found broken; they exchange a ring's set-up only between two batches.
package vhostuser
