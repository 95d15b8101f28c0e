package relay

import "time"

// Follower is something else that forwards by a switch's views, beside the relays
// and before them: what it takes, they never see. Its methods are called with the
// switch's lock held, one at a time; they must not call the switch, nor wait for
// anybody who does.
type Follower interface {
	// Follow makes v what is forwarded by, and returns when nothing is forwarded
	// by an older view any more.
	Follow(v *View)
	// Beat says that the switch is alive and may be counted on for d; it is called
	// every second. It reports false when it came too late: the follower has
	// stopped forwarding, and goes on with the next call, before which the switch
	// must have heard all that waited for it, and had it follow a view.
	Beat(d time.Duration) bool
	// Carried is what the follower did for port number n since the port was
	// attached.
	Carried(n int) Carried
}

// Carried is a follower's part in a port.
type Carried struct {
	Active            bool
	Why               string // it takes no part, when it doesn't; or ""
	RxFrames, RxBytes uint64
	TxFrames, TxBytes uint64
}
