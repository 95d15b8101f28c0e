/* SPDX-License-Identifier: MIT OR GPL-2.0-only */

/*
 * Order: no frame of a flow (source, destination, VLAN) overtakes an earlier one
 * when the flow changes between the relay and the short way.
 *
 * From the short way to the relay that is so by itself: what went the short way
 * has been handed to the egress device before the relay gets to see a later frame.
 *
 * From the relay to the short way: where a frame is left to the relay, its place
 * in the intake is noted under its flow; a frame takes the short way only if the
 * worker has given back the place noted for its flow, which it does when the
 * frames have been handed to their ports (Tx has returned).
 *
 * There are more flows than notes. A flow that has no note, because others have
 * theirs where it would be, may have frames in the intake all the same: such
 * frames raise a mark of the whole port (unknown), and a flow without a note waits
 * until the worker has passed that. A flow that goes the short way keeps a note,
 * too, and loses it only when it has been silent for two seconds: so whatever
 * floods a port with flows, the ones that were there before never wait for it.
 *
 * A flow that is faster than the relay would always have a frame in the intake.
 * But then the intake runs full, and its frames are lost anyway: from the first
 * one that is lost, its flow is let run dry (DRAIN), which takes as long as the
 * worker needs for a full intake, and goes the short way then.
 *
 * Two processors that note different flows in one place at a time lose one of the
 * notes; they mark the port, then.
 */
#pragma once

#include "intake.h"

#define SETS 256 /* of two notes, a power of two: 4 KiB a port */

/* A note: flow 24 bits, second it was last used 7, DRAIN 1, place 32. */
#define NOTE_FLOW (~0ULL << 40)
#define NOTE_SECOND 33
#define NOTE_DRAIN (1ULL << 32)

struct notes {
	__u64 note[SETS][2];
	__u32 unknown LINE; /* place of the newest frame whose flow has no note */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* for each intake */
	__type(key, __u32);
	__type(value, struct notes);
} kvswitch_notes SEC(".maps");

/* A flow as notes know it, at a time. */
struct flow {
	struct notes *notes;
	__u32 set;
	__u32 second; /* 7 bits */
	__u64 flow; /* as in a note; never 0 */
};

static __always_inline struct flow flow_of(struct notes *notes, __u64 hash, __u64 now)
{
	return (struct flow){
		.notes = notes,
		.set = hash & (SETS - 1),
		.second = (now >> 30) & 127,
		.flow = (hash | 1ULL << 63) & NOTE_FLOW,
	};
}

/*
 * passed reports that the worker has given back the place. One that it has not is
 * at most a whole intake ahead of what it has; so a place noted long ago, before
 * their numbers came round, has passed as well.
 */
static __always_inline bool passed(const struct shared *r, __u32 place)
{
	return place - (__u32)(READ_ONCE(r->tail) >> 32) - 1 >= size.entries;
}

static __always_inline __u64 make_note(const struct flow *f, __u32 place)
{
	return f->flow | (__u64)f->second << NOTE_SECOND | place;
}

/* idle reports that nobody loses anything by the note's being taken. */
static __always_inline bool idle(const struct shared *r, const struct flow *f, __u64 note)
{
	return !note || (((f->second - (note >> NOTE_SECOND)) & 127) >= 2 && passed(r, (__u32)note));
}

/* note_place notes that a frame of the flow is in the intake at place. */
static __always_inline void note_place(const struct shared *r, const struct flow *f, __u32 place)
{
	__u64 *set = f->notes->note[f->set & (SETS - 1)];
	__u64 a = READ_ONCE(set[0]), b = READ_ONCE(set[1]), note = make_note(f, place);
	__u64 *at = NULL, old = 0;

	if ((a & NOTE_FLOW) == f->flow) {
		at = &set[0], old = a, note |= a & NOTE_DRAIN;
	} else if ((b & NOTE_FLOW) == f->flow) {
		at = &set[1], old = b, note |= b & NOTE_DRAIN;
	} else if (idle(r, f, a)) {
		at = &set[0], old = a;
	} else if (idle(r, f, b)) {
		at = &set[1], old = b;
	}
	if (!at || __sync_val_compare_and_swap(at, old, note) != old)
		WRITE_ONCE(f->notes->unknown, place);
}

enum { ORDER_WAIT, ORDER_GO, ORDER_DRAIN };

/* may_pass says whether a frame of the flow may take the short way now. */
static __always_inline int may_pass(const struct shared *r, const struct flow *f)
{
	__u64 *set = f->notes->note[f->set & (SETS - 1)];
	__u64 a = READ_ONCE(set[0]), b = READ_ONCE(set[1]), old;
	__u64 *at = NULL;

	if ((a & NOTE_FLOW) == f->flow) {
		at = &set[0], old = a;
	} else if ((b & NOTE_FLOW) == f->flow) {
		at = &set[1], old = b;
	}
	if (at) {
		if (!passed(r, (__u32)old))
			return old & NOTE_DRAIN ? ORDER_DRAIN : ORDER_WAIT;
		if (((old >> NOTE_SECOND) & 127) != f->second || old & NOTE_DRAIN)
			/* Whoever else writes here at this moment is of the same flow, and knows as much. */
			__sync_val_compare_and_swap(at, old, make_note(f, READ_ONCE(r->tail) >> 32));
		return ORDER_GO;
	}
	if (!passed(r, READ_ONCE(f->notes->unknown)))
		return ORDER_WAIT;
	at = idle(r, f, a) ? &set[0] : idle(r, f, b) ? &set[1] : NULL;
	if (at) {
		old = at == &set[0] ? a : b;
		__sync_val_compare_and_swap(at, old, make_note(f, READ_ONCE(r->tail) >> 32));
	}
	return ORDER_GO;
}

/* let_drain stops a flow from filling the intake, so that it gets past it. */
static __always_inline void let_drain(const struct flow *f)
{
	__u64 *set = f->notes->note[f->set & (SETS - 1)];

	for (int i = 0; i < 2; i++) {
		__u64 old = READ_ONCE(set[i]);

		if ((old & NOTE_FLOW) == f->flow)
			__sync_val_compare_and_swap(&set[i], old, old | NOTE_DRAIN);
	}
}
