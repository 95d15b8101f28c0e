package frame

// BatchSize is the most frames a queue lends, and a port is handed, in one
// call: enough to spread a system call thin, few enough that a batch of 64-byte
// Frames (4 KiB) and the headers they point at stay in the first-level cache.
const BatchSize = 64

// Port is one attachment of the switch: a netdev, a tap, a virtio device, a
// socket. The switch calls it; it never calls the switch except through the
// notify function it was given.
//
// A port that fails, or whose peer misbehaves, reports it in State and lends no
// more frames. It never panics, blocks the caller, or retries.
type Port interface {
	// Start is called once, before any other method but State and Close.
	// notify may be called from any goroutine whenever State changed; it never
	// blocks and may be called more often than needed.
	Start(notify func()) error
	// Queues are the port's receive queues, the same ones for its lifetime.
	// Each is driven by one worker at a time.
	Queues() []Queue
	// Tx sends out in order and reports how many it took care of: sent, or
	// dropped and counted by the port itself in Counters. The caller counts
	// the rest, which are the last ones, as dropped because the port was full; a
	// port with several queues may reorder out for that. It never blocks. Any goroutine
	// may call it; hint (the worker's number) chooses among transmit queues
	// where the peer does not care, so that workers don't contend. The frames'
	// bytes are not used after it returns.
	Tx(hint int, out []Out) int
	// State is a snapshot. Any goroutine.
	State() State
	// Counters are what the port itself counted. Any goroutine.
	Counters() Counters
	// Close detaches and frees everything: fds, mappings, memberships,
	// programs, sockets. The switch calls it once, when no worker uses the port
	// any more; the port returns only when its own goroutines have ended.
	Close() error
}

// Queue is one receive queue of a port. One goroutine calls Rx, Release and Arm.
type Queue interface {
	// Rx lends up to len(b) frames, which stay valid until Release. It never
	// blocks; 0 means nothing is there now.
	Rx(b []Frame) int
	// Release gives back every frame lent since the last Release.
	Release()
	// Arm asks for FD to become readable when frames arrive, and reports
	// whether some are there already (then the caller must not sleep).
	// Calling Rx again may disarm.
	Arm() bool
	// FD is a descriptor for epoll, the same for the queue's lifetime: readable
	// (level) when frames have come since Arm found none.
	FD() int
	// Polled reports that Rx on an empty queue is a mere look at memory, so a
	// spinning worker may call it at every turn. When false Rx costs a system
	// call and the worker asks epoll first.
	Polled() bool
}

// State is what a port says of itself.
type State struct {
	Up       bool     // link up: frames may pass
	Reason   string   // why not, when not up: "no carrier", "peer gone: …"; one line
	Gone     bool     // never to come back by itself (failed, device deleted for good)
	MAC      MAC      // the port's own address (a netdev's); zero if it has none
	MTU      int      // largest payload it can be sent, in bytes; 0 = no limit known
	Speed    uint64   // bit/s; 0 = unknown
	Device   int      // index of the interface; 0 = none, or not there
	HalfDup  bool     // half duplex: a shared medium to spanning tree
	Offloads Offloads // what it may be given unfinished
}

// Counters are events that only the port can see.
type Counters struct {
	RxDropped uint64 // lost before Rx: ring full, no descriptor
	RxErrors  uint64 // refused by the port: malformed header, truncated, chain invalid
	TxErrors  uint64 // taken by Tx and then refused by the kernel or peer
}

// What follows is optional: a port implements what it has something to say to.
// So is Faulter, for a queue.

// Detailer is implemented by ports that have more to show than State: a value
// that encodes to JSON (negotiated features, rings, kicks, calls). It may take a
// while, and may be called at any time, even after Close.
type Detailer interface{ Detail() any }

// Warner is implemented by ports that may work without something that the
// operator expects of them. Warnings has one line for each such thing, with what
// follows from it; none if all is well. The list may change while the port is
// open. It never blocks. Any goroutine.
type Warner interface{ Warnings() []string }

// Waiter is implemented by ports whose peer may send as soon as it is there, before
// the switch knows that the link is up. What is lent too early is dropped; such a
// port keeps it until the switch is ready. Acted says that the switch has acted on
// a notification, and what State it found: frames lent from now on are treated
// accordingly. It is called after every notification, even if nothing changed, and
// once after Start. It never blocks.
type Waiter interface{ Acted(on State) }

// Namer is implemented by ports of a network device, which may be renamed and may
// have other names beside its own. Names has them all as they are now, its own
// first, and is empty while there is no device. A change is notified like one of
// State. It never blocks. Any goroutine.
type Namer interface{ Names() []string }

// Uplinker is implemented by ports that keep the host's own stack off their device.
// Where the port is an uplink, what the host itself has to say to the switch at the
// other end (802.1X, LLDP, LACP, …) is let through to it. SetUplink says so; until
// then the port is none. It may wait for whoever serves the device. Any goroutine.
type Uplinker interface{ SetUplink(on bool) }

// Ringer is implemented by ports whose peer is a driver with rings. It never
// blocks. Any goroutine.
type Ringer interface{ RingCounters() []RingCounters }

// RingCounters are one ring's.
type RingCounters struct {
	Ring   int    `json:"ring"`
	Frames uint64 `json:"frames"`
	Kicks  uint64 `json:"kicks"` // batches that the driver had to notify of
	Calls  uint64 `json:"calls"` // notifications of the driver
	Polls  uint64 `json:"polls"` // batches found by looking
	Errors uint64 `json:"errors"`
}

// Refuser is implemented by ports whose peer asks for things that may be refused.
// Refusals counts them from when the port was opened, and says why the last one
// was refused. It never blocks. Any goroutine.
type Refuser interface {
	Refusals() (n uint64, last string)
}

// Redirector is implemented by ports of network devices, between which programs
// in the kernel may forward by themselves (package inkernel). Any goroutine.
type Redirector interface {
	// Target is where such programs send the port's frames. It never blocks.
	Target() Target
	// Bind tells the port's own programs its number; -1 is none, and has them
	// leave every frame to the worker.
	Bind(number int)
}

// Target is a device that frames may be redirected to.
type Target struct {
	Index int    // of the interface
	Why   string // that can't be, or ""
	Peer  bool   // rather to the device's other end, in another namespace
	Stack bool   // to the host's stack, as if they had come in by the device
}
