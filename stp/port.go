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
	mdelayWhile    uint32 // 17.17.4: until the protocol version may change again
	rbWhile        uint32 // 17.17.5: the port was a backup port until recently
	rcvdInfoWhile  uint32 // 17.17.6: until received information is too old
	rrWhile        uint32 // 17.17.7: the port was the root port until recently
	tcWhile        uint32 // 17.17.8: while topology changes are announced
	txCount        uint32 // 17.19.44: BPDUs counted against TxHoldCount

	// What the port knows of its LAN.
	infoIs             infoIs   // 17.19.10: where portPriority and portTimes come from
	portPriority       vector   // 17.19.21: the best claim on the LAN
	portTimes          times    // 17.19.22: and the times that came with it
	designatedPriority vector   // 17.19.4: what the bridge itself could claim there
	designatedTimes    times    // 17.19.5
	rcvdInfo           rcvdInfo // 17.19.26: how the last BPDU compares with portPriority
	msgPriority        vector   // 17.19.14: the claim in the last BPDU
	msgTimes           times    // 17.19.15
	portPathCost       uint32   // 17.13.11, as it is in force
	updtInfo           bool     // 17.19.45: portPriority is to be replaced with designatedPriority

	// What it is, and what it may do.
	portEnabled  bool // 17.19.18: up, and not disabled by a guard
	operEdge     bool // 17.19.17: no bridge is out there
	reselect     bool // 17.19.34: roles have to be selected again
	selected     bool // 17.19.36: selectedRole is up to date
	selectedRole Role // 17.19.37: what Port Role Selection wants
	role         Role // 17.19.35: what Port Role Transitions made of it
	learn        bool // 17.19.11: the port is to learn...
	learning     bool // 17.19.12: ...and does
	forward      bool // 17.19.8: the port is to forward...
	forwarding   bool // 17.19.9: ...and does

	// Proposal and agreement (17.10).
	proposing bool // 17.19.24: a designated port asks its neighbour whether it may forward
	proposed  bool // 17.19.23: the neighbour's designated port asks that
	agree     bool // 17.19.2: the neighbour was told that it may
	agreed    bool // 17.19.3: the neighbour said that the port may
	sync      bool // 17.19.39: the port is to get in step: to discard, or to have an agreement
	synced    bool // 17.19.40: the port is in step
	reRoot    bool // 17.19.33: there is a new root port: those that were it before are to discard
	disputed  bool // 17.19.6: an inferior neighbour forwards as if it were designated

	// BPDUs in and out.
	rcvdBPDU bool // 17.19.25: bpdu has come in
	rcvdMsg  bool // 17.19.27: Port Information is to look at it
	rcvdRSTP bool // 17.19.28: it was one of RSTP
	rcvdSTP  bool // 17.19.29: it was one of STP
	sendRSTP bool // 17.19.38: the port speaks RSTP
	mcheck   bool // 17.19.13: it is to try RSTP again
	newInfo  bool // 17.19.16: a BPDU is due

	// Topology changes (17.11).
	rcvdTc    bool // 17.19.30: the neighbour told of one, by the flag
	rcvdTcn   bool // 17.19.32: the same, by a TCN BPDU
	rcvdTcAck bool // 17.19.31: the neighbour heard this bridge's TCN
	tcAck     bool // 17.19.41: this bridge is to acknowledge the neighbour's
	tcProp    bool // 17.19.42: another port heard of one: pass it on
	fdbFlush  bool // 17.19.7: addresses learned on the port are to be forgotten

	bpdu BPDU // the last valid BPDU; most of the fields above are about it

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
	neighbour string // version of the last BPDU; "" if none has come since the port came up
	rxRecent  uint32 // BPDUs since the last Tick
	tcHeard   uint32 // while it runs, further TC flags belong to a change already counted
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
