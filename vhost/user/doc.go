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
// Nothing that a guest or its front end does reaches beyond its own port. A
// chain that is wrong costs that chain; a ring that is wrong, or memory that is
// taken away, costs the port its link, with the reason in State, until the front
// end sets it up anew; a message that makes no sense costs the connection.
//
// The methods of Port may be called from any goroutine, each Queue from one at a
// time. A port has two goroutines of its own, for the socket and for rings that
// workers found broken; they exchange a ring's set-up only between two batches.
package vhostuser
