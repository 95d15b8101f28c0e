/*
 * The table of package fdb for readers in C: its layout in memory, and the
 * rules of lookup, age and refresh, as memory.go, hash.go and word.go give them
 * with their reasons. It includes nothing and compiles for the host and, with
 * clang -target bpf -mcpu=v3, for BPF (compare-and-swap: Linux 5.12).
 *
 * A reader never learns, moves or removes an entry. It writes one thing: the
 * second of an entry that it has heard, by compare-and-swap.
 *
 * For a BPF program the number of buckets must be a constant, e.g. of .rodata,
 * so that the verifier knows how far an index goes, and the map's value must be
 * as large as fdb_size says.
 */
#ifndef KVSWITCH_FDB_H
#define KVSWITCH_FDB_H

typedef __UINT64_TYPE__ fdb_u64;
typedef __UINT32_TYPE__ fdb_u32;

#define FDB_INLINE static inline __attribute__((always_inline, unused))

#define FDB_MAX_PORTS 4096

/*
 * A key: bit 63 set, VLAN id in bits 48 to 59, and below the MAC address as a
 * little-endian load of six bytes.
 *
 * A value, from the top: port 12 bits, generation 16, kind 2, incarnation 12,
 * second 22.
 *
 * The clock: age at which dynamic entries are too old in the upper half, the
 * second that it is in the lower.
 */
#define FDB_KEY_VALID	(1ull << 63)
#define FDB_VID_SHIFT	48

#define FDB_PORT_SHIFT	52
#define FDB_GEN_SHIFT	36
#define FDB_GEN_MASK	0xffffull
#define FDB_KIND_SHIFT	34
#define FDB_KIND_MASK	3ull
#define FDB_INC_SHIFT	22
#define FDB_INC_MASK	0xfffull
#define FDB_SEC_MASK	0x3fffffull

enum fdb_kind { FDB_FREE, FDB_DYNAMIC, FDB_STATIC, FDB_LOCAL };

struct fdb_slot {
	fdb_u64 key, val;
};

struct fdb_bucket { /* a cache line */
	struct fdb_slot slot[4];
};

struct fdb_head {
	fdb_u64 clock;
	fdb_u32 fold[2];
	fdb_u64 first[2], second[2];
	fdb_u64 spilled; /* entries in overflow buckets */
	fdb_u64 unused;
	fdb_u32 gens[FDB_MAX_PORTS];
};

struct fdb {
	struct fdb_head head;
	struct fdb_bucket bucket[]; /* n, a power of two, and n/8 for overflow */
};

_Static_assert(sizeof(struct fdb_slot) == 16, "a slot is two words");
_Static_assert(sizeof(struct fdb_bucket) == 64, "a bucket is a cache line");
_Static_assert(__builtin_offsetof(struct fdb_head, gens) == 64, "what lookups read is a cache line");
_Static_assert(sizeof(struct fdb_head) % sizeof(struct fdb_bucket) == 0, "buckets are aligned");
_Static_assert(__builtin_offsetof(struct fdb, bucket) == sizeof(struct fdb_head), "buckets follow the head");

FDB_INLINE fdb_u64 fdb_size(fdb_u32 n)
{
	return sizeof(struct fdb_head) + (n + n / 8ull) * sizeof(struct fdb_bucket);
}

/*
 * Loads. fdb_load promises that the word is loaded once. fdb_load_after loads p
 * after another word, whose value was v.
 *
 * The host has acquire loads. BPF has none before Linux 6.15, and there a plain
 * load may be overtaken by the next one where the processor lets it (arm64). So
 * p is made to depend on v, by adding nothing that v decides: no processor of
 * Linux takes a value from an address that it doesn't know yet. The barrier in
 * assembler keeps the compiler from seeing that it is nothing; the verifier sees
 * it, and knows that p stays where it is; JITs compile it as it stands.
 */
#ifdef __bpf__
FDB_INLINE fdb_u64 fdb_load(const fdb_u64 *p)
{
	return *(const volatile fdb_u64 *)p;
}

FDB_INLINE fdb_u64 fdb_load_after(const fdb_u64 *p, fdb_u64 v)
{
	__asm__ volatile("%0 &= 0" : "+r"(v));
	return *(const volatile fdb_u64 *)((const char *)p + v);
}
#else
FDB_INLINE fdb_u64 fdb_load(const fdb_u64 *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

FDB_INLINE fdb_u64 fdb_load_after(const fdb_u64 *p, fdb_u64 v)
{
	(void)v; /* acquired */
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
#endif

/* fdb_key is the key of a station: mac as a little-endian load of its six bytes. */
FDB_INLINE fdb_u64 fdb_key(fdb_u64 mac, fdb_u32 vid)
{
	return FDB_KEY_VALID | (fdb_u64)vid << FDB_VID_SHIFT | mac;
}

FDB_INLINE fdb_u32 fdb_port(fdb_u64 val) { return val >> FDB_PORT_SHIFT; }
FDB_INLINE fdb_u32 fdb_gen(fdb_u64 val) { return val >> FDB_GEN_SHIFT & FDB_GEN_MASK; }
FDB_INLINE fdb_u32 fdb_kind(fdb_u64 val) { return val >> FDB_KIND_SHIFT & FDB_KIND_MASK; }

/* fdb_product is the first step of the hash, fdb_spread the second. */
FDB_INLINE fdb_u64 fdb_product(const struct fdb_head *h, fdb_u64 key)
{
	fdb_u32 low = (fdb_u32)key + h->fold[0], high = (fdb_u32)(key >> 32) + h->fold[1];

	return (fdb_u64)low * high;
}

FDB_INLINE fdb_u64 fdb_spread(fdb_u64 p, const fdb_u64 s[2])
{
	return ((p >> 32) + s[0]) * ((p & 0xffffffff) + s[1]);
}

/* fdb_search is the slot of a bucket whose key is key, or a null pointer. */
FDB_INLINE struct fdb_slot *fdb_search(struct fdb_bucket *b, fdb_u64 key)
{
	if (fdb_load(&b->slot[0].key) == key)
		return &b->slot[0];
	if (fdb_load(&b->slot[1].key) == key)
		return &b->slot[1];
	if (fdb_load(&b->slot[2].key) == key)
		return &b->slot[2];
	if (fdb_load(&b->slot[3].key) == key)
		return &b->slot[3];
	return (struct fdb_slot *)0;
}

/*
 * fdb_read is the slot's value if the slot holds key, and 0 if not: value, key
 * and value again, in this order. All three are loaded before anything is
 * compared, for a key that was found equal need no longer be the key that was
 * loaded, to a compiler.
 */
FDB_INLINE fdb_u64 fdb_read(const struct fdb_slot *s, fdb_u64 key)
{
	fdb_u64 val = fdb_load(&s->val);
	fdb_u64 was = fdb_load_after(&s->key, val);
	fdb_u64 again = fdb_load_after(&s->val, was);

	if (was != key || ((val ^ again) >> FDB_INC_SHIFT & FDB_INC_MASK) || fdb_kind(val) == FDB_FREE)
		return 0;
	return val;
}

/*
 * fdb_find looks for key in a table of n buckets. It returns the slot and puts
 * its value into *val, or returns a null pointer. The entry may be dead or too
 * old: see fdb_current.
 */
FDB_INLINE struct fdb_slot *fdb_find(struct fdb *t, fdb_u32 n, fdb_u64 key, fdb_u64 *val)
{
	fdb_u64 p = fdb_product(&t->head, key);
	fdb_u64 first = fdb_spread(p, t->head.first), second;
	struct fdb_slot *s = fdb_search(&t->bucket[first >> 32 & (n - 1)], key);

	if (!s) {
		second = fdb_spread(p, t->head.second);
		s = fdb_search(&t->bucket[second >> 32 & (n - 1)], key);
		if (!s && fdb_load(&t->head.spilled))
			s = fdb_search(&t->bucket[n + ((first + second) >> 46 & (n / 8 - 1))], key);
		if (!s)
			return s;
	}
	*val = fdb_read(s, key);
	return *val ? s : (struct fdb_slot *)0;
}

/* fdb_age is the number of seconds since val was heard, by the clock. */
FDB_INLINE fdb_u32 fdb_age(fdb_u64 clock, fdb_u64 val)
{
	fdb_u32 age = (clock - val) & FDB_SEC_MASK;

	return age > FDB_SEC_MASK / 2 ? 0 : age; /* heard after the clock was read */
}

/*
 * fdb_current reports that the entry val counts: static or local, or of its
 * port's present generation and not too old.
 */
FDB_INLINE int fdb_current(const struct fdb *t, fdb_u64 val, fdb_u64 clock)
{
	if (fdb_kind(val) != FDB_DYNAMIC)
		return fdb_kind(val) != FDB_FREE;
	return fdb_gen(val) == *(const volatile fdb_u32 *)&t->head.gens[fdb_port(val)] &&
	       fdb_age(clock, val) < clock >> 32;
}

/*
 * fdb_refresh notes that the dynamic entry val of slot s was heard now. If the
 * slot has changed since val was read, nothing is written: a plain store would
 * undo what the switch did meanwhile.
 */
FDB_INLINE void fdb_refresh(struct fdb_slot *s, fdb_u64 val, fdb_u64 clock)
{
	if ((val ^ clock) & FDB_SEC_MASK)
		__sync_val_compare_and_swap(&s->val, val, (val & ~FDB_SEC_MASK) | (clock & FDB_SEC_MASK));
}

/*
 * fdb_lookup finds the current entry of a station and returns its value, or 0.
 * Who works from a snapshot of the ports compares their generations with the
 * entry's too, if it is dynamic.
 */
FDB_INLINE fdb_u64 fdb_lookup(struct fdb *t, fdb_u32 n, fdb_u64 key)
{
	fdb_u64 val;

	if (!fdb_find(t, n, key, &val) || !fdb_current(t, val, fdb_load(&t->head.clock)))
		return 0;
	return val;
}

/*
 * fdb_heard reports that the station is known on this very port, and refreshes
 * it. If not, or if the entry has got too old, the switch must see the frame, to
 * learn from it.
 */
FDB_INLINE int fdb_heard(struct fdb *t, fdb_u32 n, fdb_u64 key, fdb_u32 port)
{
	fdb_u64 val, clock = fdb_load(&t->head.clock);
	struct fdb_slot *s = fdb_find(t, n, key, &val);

	if (!s || fdb_port(val) != port || !fdb_current(t, val, clock))
		return 0;
	if (fdb_kind(val) == FDB_DYNAMIC)
		fdb_refresh(s, val, clock);
	return 1;
}

#endif
