package fdb

// word is a slot's value. From the top: port 12 bits, generation 16, kind 2,
// incarnation 12, second 22.
//
// The incarnation counts how often the slot was freed. A key is written only
// while its slot is free, so two loads of the value that show the same
// incarnation prove that a key loaded between them is the value's own, and a
// compare-and-swap of the value can only succeed on the entry that was read. It
// wraps after 4096 reuses of one slot, all of which would have to fall between
// two neighbouring instructions of one reader.
//
// The second is the table's clock modulo 2^22 (48 days). No dynamic entry gets
// half as old: MaxAgeing is 11.6 days, a single step of the clock is no longer
// and has the whole table swept.
type word uint64

const (
	secBits  = 22
	incShift = secBits
	incBits  = 12

	kindShift = incShift + incBits
	genShift  = kindShift + 2
	portShift = genShift + 16

	secMask = 1<<secBits - 1
	incMask = (1<<incBits - 1) << incShift
)

// free is the kind of a slot without an entry.
const free Kind = 0

func makeWord(port, gen uint16, kind Kind, sec uint32) word {
	return word(port)<<portShift | word(gen)<<genShift | word(kind)<<kindShift | word(sec&secMask)
}

func (w word) port() uint16 { return uint16(w >> portShift) }
func (w word) gen() uint16  { return uint16(w >> genShift) }
func (w word) kind() Kind   { return Kind(w>>kindShift) & 3 }
func (w word) sec() uint32  { return uint32(w) & secMask }

// same reports that w and v are of one incarnation of their slot.
func (w word) same(v word) bool { return (w^v)&incMask == 0 }

// freed is the value of the slot once the entry w has left it.
func (w word) freed() word { return (w + 1<<incShift) & incMask }

// clock is the table's second in its low half and, above it, the age in seconds
// at which dynamic entries are expired. One word, so that a reader sees both.
type clock uint64

func makeClock(now, limit uint32) clock { return clock(limit)<<32 | clock(now&secMask) }

func (c clock) now() uint32   { return uint32(c) }
func (c clock) limit() uint32 { return uint32(c >> 32) }

// age is the number of seconds since w was stored, and 0 if that was after c was
// read. No entry gets half as old as 2^22 seconds: see word and tick.
func (c clock) age(w word) uint32 {
	age := (c.now() - uint32(w)) & secMask
	if age > secMask/2 {
		return 0
	}
	return age
}

// fresh reports that w, which is a dynamic entry, is not expired.
func (c clock) fresh(w word) bool { return c.age(w) < c.limit() }

// expired reports that w is a dynamic entry whose time has passed.
func (c clock) expired(w word) bool { return w.kind() == Dynamic && c.age(w) >= c.limit() }
