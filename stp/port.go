package stp

// port is one port's part of the state machines: the variables of 17.19, the
// timers of 17.17, and where each machine stands. Names are the standard's.
type port struct {
	b   *Bridge
	num uint16
	cfg PortConfig

	// Timers (17.17), in seconds; Port Timers counts them down.
	edgeDelayWhile uint32 // 17.17.1: until a silent port is an edge port
	fdWhile        uint32 // 17.17.2: until the port may learn, or forward, unasked
	helloWhen      uint32 // 17.17.3: until the next BPDU is due
	mdelayWhile    uint32 // 17.17.4: while the protocol version is not changed
	rbWhile        uint32 // 17.17.5: the port was a backup port until recently
	rcvdInfoWhile  uint32 // 17.17.6: until received information is too old
	rrWhile        uint32 // 17.17.7: the port was the root port until recently
	tcWhile        uint32 // 17.17.8: while topology changes are announced
	txCount        uint32 // 17.19.44: BPDUs counted against TxHoldCount

	// Per-Port variables (17.19).
	agree              bool     // 17.19.2
	agreed             bool     // 17.19.3
	designatedPriority vector   // 17.19.4
	designatedTimes    times    // 17.19.5
	disputed           bool     // 17.19.6
	fdbFlush           bool     // 17.19.7
	forward            bool     // 17.19.8
	forwarding         bool     // 17.19.9
	infoIs             infoIs   // 17.19.10
	learn              bool     // 17.19.11
	learning           bool     // 17.19.12
	mcheck             bool     // 17.19.13
	msgPriority        vector   // 17.19.14
	msgTimes           times    // 17.19.15
	newInfo            bool     // 17.19.16
	operEdge           bool     // 17.19.17
	portEnabled        bool     // 17.19.18
	portPathCost       uint32   // 17.13.11 in force
	portPriority       vector   // 17.19.21
	portTimes          times    // 17.19.22
	proposed           bool     // 17.19.23
	proposing          bool     // 17.19.24
	rcvdBPDU           bool     // 17.19.25
	rcvdInfo           rcvdInfo // 17.19.26
	rcvdMsg            bool     // 17.19.27
	rcvdRSTP           bool     // 17.19.28
	rcvdSTP            bool     // 17.19.29
	rcvdTc             bool     // 17.19.30
	rcvdTcAck          bool     // 17.19.31
	rcvdTcn            bool     // 17.19.32
	reRoot             bool     // 17.19.33
	reselect           bool     // 17.19.34
	role               Role     // 17.19.35
	selected           bool     // 17.19.36
	selectedRole       Role     // 17.19.37
	sendRSTP           bool     // 17.19.38
	sync               bool     // 17.19.39
	synced             bool     // 17.19.40
	tcAck              bool     // 17.19.41
	tcProp             bool     // 17.19.42
	updtInfo           bool     // 17.19.45

	bpdu BPDU // the BPDU that rcvdBPDU and rcvdMsg speak of

	// Where each machine stands.
	prx prxState
	ppm ppmState
	bdm bdmState
	ptx ptxState
	pim pimState
	prt prtState
	pst pstState
	tcm tcmState

	guard     guard  // guard.go
	said      said   // what the owner was told last, run.go
	neighbour string // version of the last BPDU, "" since the port came up
	rxRecent  uint32 // BPDUs since the last Tick
	tcHeard   uint32 // while further TC flags belong to a change already counted
	mayHold   bool   // the filtering database may hold addresses of this port
	held      bool   // a BPDU is waiting for txCount, and has been counted
	counters  Counters
}

// infoIs says where the port's information (portPriority, portTimes) comes
// from (17.19.10).
type infoIs uint8

const (
	infoDisabled infoIs = iota
	infoAged
	infoMine
	infoReceived
)

// portID is portId (17.19.19).
func (p *port) portID() PortID { return MakePortID(p.cfg.Priority, p.num) }

// adminEdge is AdminEdge (17.20.1). A port that filters BPDUs has no
// neighbours to wait for.
func (p *port) adminEdge() bool { return p.cfg.AdminEdge || p.cfg.BPDUFilter }

// operPointToPoint is operPointToPointMAC (6.4.3).
func (p *port) operPointToPoint() bool {
	switch p.cfg.PointToPoint {
	case P2POn:
		return true
	case P2POff:
		return false
	}
	return !p.cfg.HalfDuplex
}

// Parameters of the state machines (17.20), in seconds. The times are the
// root's, so a remote bridge sets them: each is held to table 17-1's range, but
// for a forward delay of 2 or 3, which bridges of 802.1D-1998 are seen to use.

// migrateTime is MigrateTime (17.13.9). EdgeDelay and forwardDelay are in
// strict.go.
const migrateTime = 3

// fwdDelay is FwdDelay (17.20.6).
func (p *port) fwdDelay() uint32 {
	return seconds(p.designatedTimes.forwardDelay, 2, MaxForwardDelay)
}

// helloTime is HelloTime (17.20.7): this bridge's own, whatever the root's is.
func (p *port) helloTime() uint32 { return seconds(p.designatedTimes.helloTime, MinHello, MaxHello) }

// maxAge is MaxAge (17.20.8).
func (p *port) maxAge() uint32 { return seconds(p.designatedTimes.maxAge, MinMaxAge, MaxMaxAge) }

// settled is the condition under which roles and timers of the port are to be
// relied on: its information is up to date and no selection is outstanding
// (the "selected && !updtInfo" of figures 17-17 and 17-20 to 17-22).
func (p *port) settled() bool { return p.selected && !p.updtInfo }
