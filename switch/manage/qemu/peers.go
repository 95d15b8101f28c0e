package qemu

import (
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits on the peers of the bridge helper's socket, to which every user of the
// host may connect as often as he likes. Who is turned away has cost a few system
// calls, as many as he spent.
const (
	// maxPeers is how many may be connected. Each is a descriptor and a goroutine.
	maxPeers = 256
	// maxPeersOfUser is how many of them one user may have, so that he leaves
	// room for others. A host that starts all of its machines at once has as many
	// that wait for their taps.
	maxPeersOfUser = 64
	// refusalPause is how long a refusal keeps its user from the next one, and
	// maxJudged how many of a user's peers are judged, which costs reading the list
	// and the user database, or refused at once: he is refused 16 times a second at
	// most, by a program that asks in a loop as by one that asks in parallel.
	refusalPause = 250 * time.Millisecond
	maxJudged    = 4
)

// peers are those who are connected.
type peers struct {
	mu     sync.Mutex
	free   sync.Cond // somebody has been judged
	closed chan struct{}
	all    map[*peer]struct{}
	users  map[uint32]int // places, by user
	judged map[uint32]int // those of them that are judged or refused
}

// peer is one that is connected.
type peer struct {
	*net.UnixConn
	uid, gid uint32
	pid      int32
}

func newPeers() *peers {
	ps := &peers{closed: make(chan struct{}), all: map[*peer]struct{}{}, users: map[uint32]int{}, judged: map[uint32]int{}}
	ps.free.L = &ps.mu
	return ps
}

// enter asks the kernel who is there and gives a place, or nil if there is none
// for this user.
func (ps *peers) enter(c *net.UnixConn) (p *peer, uid uint32, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var cred *unix.Ucred
	if cerr := rc.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return nil, 0, err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.isClosed() || len(ps.all) >= maxPeers || ps.users[cred.Uid] >= maxPeersOfUser {
		return nil, cred.Uid, nil
	}
	p = &peer{c, cred.Uid, cred.Gid, cred.Pid}
	ps.all[p] = struct{}{}
	ps.users[p.uid]++
	return p, p.uid, nil
}

func (ps *peers) isClosed() bool {
	select {
	case <-ps.closed:
		return true
	default:
		return false
	}
}

// leave closes the connection and gives the place back.
func (ps *peers) leave(p *peer) {
	p.Close()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.all, p)
	drop(ps.users, p.uid)
}

// judge waits until a peer's user has room to be judged. After it comes acquit or
// pause.
func (ps *peers) judge(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for ps.judged[p.uid] >= maxJudged && !ps.isClosed() {
		ps.free.Wait()
	}
	ps.judged[p.uid]++
}

func (ps *peers) acquit(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	drop(ps.judged, p.uid)
	ps.free.Broadcast()
}

// accuse is judge for a peer that was acquitted and turns out to be no better.
func (ps *peers) accuse(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.judged[p.uid]++
}

// pause is acquit after a while.
func (ps *peers) pause(p *peer) {
	t := time.NewTimer(refusalPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ps.closed:
	}
	ps.acquit(p)
}

// drop takes one from a count, and the count away when it is none.
func drop(counts map[uint32]int, uid uint32) {
	if counts[uid]--; counts[uid] == 0 {
		delete(counts, uid)
	}
}

// close ends every connection: what waits for a peer waits no longer.
func (ps *peers) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	close(ps.closed)
	for p := range ps.all {
		p.Close()
	}
	ps.free.Broadcast()
}
