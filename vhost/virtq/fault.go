package virtq

// Fault is what a driver did wrong in its ring. It is an error that costs no
// allocation to return.
type Fault uint8

// Faults that end the ring: Take returns them, and goes on returning them.
const (
	// FaultAvail: the available index is further ahead than the queue is long.
	FaultAvail Fault = iota + 1
	// FaultHead: the available ring names a descriptor that does not exist.
	FaultHead
)

// Faults that cost one chain: Take leaves them in Chain.Fault.
const (
	// FaultNext: next points past the end of the table.
	FaultNext Fault = iota + 16
	// FaultLong: a loop, or more descriptors than the queue has or a Batch takes.
	FaultLong
	// FaultEmpty: a buffer of no bytes.
	FaultEmpty
	// FaultRange: a buffer outside guest memory, or across the end of a region.
	FaultRange
	// FaultDirection: the device reads a device-writable buffer or writes to a
	// device-readable one.
	FaultDirection
	// FaultIndirect: an indirect descriptor that the driver may not use: not
	// negotiated, nested, with NEXT set, or a table of no whole descriptors.
	FaultIndirect
)

var faultText = map[Fault]string{
	FaultAvail:     "available index jumped ahead by more than the queue size",
	FaultHead:      "available ring names a descriptor past the end of the table",
	FaultNext:      "descriptor chain points past the end of the table",
	FaultLong:      "descriptor chain loops or is too long",
	FaultEmpty:     "descriptor of zero length",
	FaultRange:     "descriptor points outside guest memory",
	FaultDirection: "descriptor has the wrong direction",
	FaultIndirect:  "indirect descriptor is not allowed or malformed",
}

// Error says it in one line, as the driver's doing.
func (f Fault) Error() string {
	if s, ok := faultText[f]; ok {
		return s
	}
	return "unknown virtqueue fault"
}
