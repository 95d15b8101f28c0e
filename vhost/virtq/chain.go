package virtq

// Chain is one descriptor chain that the driver made available: copied out of
// the ring, validated, and translated to memory of this process.
type Chain struct {
	// First is the first buffer, never empty unless Fault is set.
	First []byte
	// Written is set by the user of a device-writable chain before Return: how
	// many bytes, from the start, were written.
	Written uint32
	// Head identifies the chain to the driver.
	Head uint16
	// Fault is 0, or what is wrong with the chain. Such a chain has no buffers
	// and is only good to be returned.
	Fault Fault

	again      bool   // resubmitted, not from the available ring
	more, from uint16 // the other buffers are pieces[from:from+more] of the Batch
}

// Single reports a chain of one good buffer.
func (c *Chain) Single() bool { return c.more == 0 && c.Fault == 0 }

// Batch holds chains that were taken and not yet returned. It is made once and
// used again.
type Batch struct {
	// Chains are the chains taken, oldest first.
	Chains []Chain

	pieces [][]byte
	walked int  // descriptors read for chains of more than one, since Reset
	full   bool // the last Take stopped because one more chain's were too many
}

// NewBatch makes a Batch for so many chains, and so many buffers beyond the
// first of each chain, at most 65535; that is also the limit for one chain. Take
// stops early where a batch has room for no more buffers, or was enough work.
func NewBatch(chains, pieces int) *Batch {
	return &Batch{Chains: make([]Chain, 0, chains), pieces: make([][]byte, 0, min(pieces, 1<<16-1))}
}

// Reset empties the batch.
func (b *Batch) Reset() {
	b.Chains = b.Chains[:0]
	b.pieces = b.pieces[:0]
	b.walked, b.full = 0, false
}

// Full reports that Take will append nothing to the batch before Reset.
func (b *Batch) Full() bool { return b.full || b.Room() == 0 }

// Walked is how many descriptors were read for the chains of the batch that have
// more than one, the bad ones included.
func (b *Batch) Walked() int { return b.walked }

// Work is how many descriptors count as a batch of work: as many as make it full.
func (b *Batch) Work() int { return cap(b.pieces) + cap(b.Chains) }

// Room is how many more chains the batch takes.
func (b *Batch) Room() int { return cap(b.Chains) - len(b.Chains) }

// Rest is the chain's buffers after First.
func (b *Batch) Rest(c *Chain) [][]byte {
	return b.pieces[c.from : c.from+c.more : c.from+c.more]
}

// Size is the length of all of the chain's buffers together, in bytes.
func (b *Batch) Size(c *Chain) int {
	n := len(c.First)
	for _, p := range b.Rest(c) {
		n += len(p)
	}
	return n
}

// walk fills c with the chain that starts with the descriptor e, in the general
// case; takeNew handles the commonest without it. It reads at most as many
// descriptors as the queue has, those of an indirect table included: no chain may
// be longer than the queue (2.7.5.3.1), and a loop is.
//
// It reports false, and c is not to be used, if the chains before it left too
// little room, or were enough work: a driver can make the device read a thousand
// descriptors for every bad chain, and others wait meanwhile.
func (d *Device) walk(b *Batch, c *Chain, e desc) bool {
	if b.full = b.walked >= b.Work(); b.full {
		return false
	}
	c.First, c.from = nil, uint16(len(b.pieces))
	table, nested := d.desc[:d.size], false
	for left := d.size; left > 0; {
		if e.flags()&descIndirect != 0 {
			t, f := d.table(e, nested)
			if f != 0 {
				return d.spoil(b, c, f)
			}
			table, nested, e = t, true, t[0]
			continue // nested: this happens once in a chain
		}
		left--
		b.walked++
		buf, f := d.buffer(e)
		switch {
		case f != 0:
		case c.First == nil:
			c.First = buf
		case len(b.pieces) < cap(b.pieces):
			b.pieces = append(b.pieces, buf)
			c.more++
		case c.from > 0: // with an empty batch it may fit
			b.pieces = b.pieces[:c.from]
			b.full = true
			return false
		default:
			f = FaultLong
		}
		if f == 0 && e.flags()&descNext == 0 {
			return true
		}
		if f == 0 && int(e.next()) >= len(table) {
			f = FaultNext
		}
		if f != 0 {
			return d.spoil(b, c, f)
		}
		e = table[e.next()]
	}
	return d.spoil(b, c, FaultLong)
}

// spoil makes c a chain that is only good to be returned, which is true.
func (d *Device) spoil(b *Batch, c *Chain, f Fault) bool {
	b.pieces = b.pieces[:c.from]
	c.First, c.more, c.Fault = nil, 0, f
	return true
}

// buffer translates and checks one descriptor.
func (d *Device) buffer(e desc) ([]byte, Fault) {
	if e.len() == 0 {
		return nil, FaultEmpty
	}
	if e.flags()&descWrite != d.write {
		return nil, FaultDirection
	}
	buf, ok := d.guest(e.addr, uint64(e.len()))
	if !ok {
		return nil, FaultRange
	}
	return buf, 0
}

// table is the indirect table of e. WRITE means nothing in such a descriptor
// (2.7.5.3.2), NEXT and INDIRECT within a table are forbidden (2.7.5.3.1).
func (d *Device) table(e desc, nested bool) ([]desc, Fault) {
	if !d.indirect || nested || e.flags()&descNext != 0 || e.len() == 0 || e.len()%descLen != 0 {
		return nil, FaultIndirect
	}
	mem, ok := d.guest(e.addr, uint64(e.len()))
	if !ok {
		return nil, FaultRange
	}
	return asDescs(mem), 0
}

// guest is Memory.Guest, quick for the region that was hit last.
func (d *Device) guest(addr, n uint64) ([]byte, bool) {
	if addr-d.last.Guest >= uint64(len(d.last.Mem)) {
		d.last = d.mem.find(addr)
	}
	return within(d.last.Mem, addr-d.last.Guest, n)
}
