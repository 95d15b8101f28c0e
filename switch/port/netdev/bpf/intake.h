/* SPDX-License-Identifier: MIT OR GPL-2.0-only */

/*
 * The program's side of an intake: the worker's side, and what it is for, are in
 * intake.go. A program that has a frame for the worker calls intake(ctx), which is
 * the last function here.
 */
#pragma once

#include "kernel.h"
#include "shield.h"

/* As in intake.go, and there explained. */
#define UNIT_SHIFT 6
#define UNIT (1 << UNIT_SHIFT)
#define ENTRY_NUMBER 32
#define ENTRY_LENGTH ((1 << 20) - 1)
#define ENTRY_VALID (1 << 24)
#define ENTRY_EXTRA (1 << 25)

/* As in package frame: how long a frame may be, and its offload header. */
#define HEADER_LEN 14
#define MAX_LEN (65535 + HEADER_LEN + 2 * 4)
#define LONG_LEN (8 * 65536 + 512) /* of one to be segmented, "BIG TCP": GSO_MAX_SIZE and headers */
#define HDR_NEEDS_CSUM 1
#define HDR_DATA_VALID 2
#define GSO_TCPV4 1
#define GSO_UDP 3
#define GSO_TCPV6 4
#define GSO_UDP_L4 5
#define GSO_ECN 0x80
#define GSO_TUNNEL 0x10

/*
 * A type that no port offers, for one that nobody knows how to segment: the switch
 * drops the frame by that.
 */
#define GSO_UNKNOWN 0x7f

/* Tunnels that the switch can segment in, and others. */
#define TUNNELS \
	(SKB_GSO_GRE | SKB_GSO_GRE_CSUM | SKB_GSO_IPXIP4 | SKB_GSO_IPXIP6 | SKB_GSO_UDP_TUNNEL | SKB_GSO_UDP_TUNNEL_CSUM)
#define OTHER_TUNNELS (SKB_GSO_TUNNEL_REMCSUM | SKB_GSO_ESP)

/* A frame beyond MAX_LEN is copied in such pieces, of which each has its place. */
#define PIECE 32768

/*
 * How often a frame competes with those on other processors for the same room
 * before it is given up.
 */
#define TRIES 8

/* Begins on a cache line, so that each side has lines that only it writes. */
#define LINE __attribute__((aligned(64)))

/*
 * What program and worker tell each other, where an intake's memory begins. A
 * position is the number of a frame, and in the lower half that of its first unit.
 */
struct shared {
	/* The program's. */
	__u64 head LINE; /* position of the next frame */
	__u64 seen; /* its copy of tail, which saves it looking at the worker's line */
	/* The worker's. */
	__u64 tail LINE; /* up to where frames were given back */
	/* Both's: if not 0, the worker sleeps, and the next frame is to wake it up. */
	__u64 bell LINE;
	/* Frames that found no room; frames too short or too long for the switch. */
	__u64 lost LINE;
	__u64 bad;
	/* The control side's: the port's number plus one; 0 leaves every frame to the worker. */
	__u32 port;
};

/* What comes before the bytes of a frame that is not plain. */
struct extra {
	/* Its offload header, struct virtio_net_hdr. */
	__u8 flags;
	__u8 gso_type;
	__u16 hdr_len;
	__u16 gso_size;
	__u16 csum_start;
	__u16 csum_offset;
	__u16 unused;
	/* Its tag: TPID and TCI, or 0. */
	__u32 tag;
};

/* Of every intake that the program fills. Known to the verifier. */
struct sizes {
	__u32 queues; /* that share the frames, flow by flow; each has an intake */
	__u32 entries; /* of the ring of entries, a power of two */
	__u32 units; /* of the ring of data, a power of two */
	__u32 data; /* where that begins */
};
const volatile struct sizes size;

/* The intakes. Their memory is longer than its head: it is made for the sizes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shared);
} kvswitch_frames SEC(".maps");

/* What wakes up their workers. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_RINGBUF);
		__uint(max_entries, 4096);
	});
} kvswitch_bells SEC(".maps");

/*
 * fits reports room for so many units and one frame, at the given numbers, if all
 * before tail was given back.
 */
static __always_inline bool fits(__u32 frame, __u32 unit, __u32 units, __u64 tail)
{
	return frame - (__u32)(tail >> 32) < size.entries && unit + units - (__u32)tail <= size.units;
}

/*
 * reserve takes a frame's place in both rings, at the position *at, or reports
 * that there is none.
 */
static __always_inline bool reserve(struct shared *r, __u32 units, __u64 *at)
{
	for (int i = 0; i < TRIES; i++) {
		__u64 head = READ_ONCE(r->head);
		__u32 frame = head >> 32, unit = head;

		if (!fits(frame, unit, units, READ_ONCE(r->seen))) {
			__u64 tail = READ_ONCE(r->tail);

			WRITE_ONCE(r->seen, tail);
			if (!fits(frame, unit, units, tail))
				return false;
		}
		*at = head;
		if (__sync_val_compare_and_swap(&r->head, head, (__u64)(frame + 1) << 32 | (unit + units)) == head)
			return true;
	}
	return false;
}

/* gso_type is the offload header's word for how a frame is to be segmented. */
static __always_inline __u8 gso_type(const struct sk_buff *skb)
{
	const struct skb_shared_info *info =
		bpf_rdonly_cast(skb->head + skb->end, bpf_core_type_id_kernel(struct skb_shared_info));
	__u32 type = info->gso_type;
	__u8 word;

	if (type & OTHER_TUNNELS)
		return GSO_UNKNOWN;
	if (type & SKB_GSO_TCPV4)
		word = GSO_TCPV4;
	else if (type & SKB_GSO_TCPV6)
		word = GSO_TCPV6;
	else if (type & SKB_GSO_UDP_L4)
		word = GSO_UDP_L4;
	else if (type & SKB_GSO_UDP)
		word = GSO_UDP;
	else
		return GSO_UNKNOWN;
	if (type & TUNNELS)
		word |= GSO_TUNNEL;
	return type & SKB_GSO_TCP_ECN ? word | GSO_ECN : word;
}

/* csum_start is where the frame's unfinished checksum starts. */
static __always_inline __u32 csum_start(const struct sk_buff *skb)
{
	long headroom = skb->data - skb->head;

	/* The verifier takes no sums of pointers in halves of registers, which this would become. */
	asm volatile("" : "+r"(headroom));
	return skb->csum_start - headroom;
}

/*
 * describe writes down tag and offloads, these as the kernel's own
 * virtio_net_hdr_from_skb does for packet sockets.
 */
static __always_inline void describe(struct __sk_buff *ctx, struct extra *e)
{
	const struct sk_buff *skb = bpf_cast_to_kern_ctx(ctx);
	__u8 summed = BPF_CORE_READ_BITFIELD(skb, ip_summed);

	__builtin_memset(e, 0, sizeof(*e));
	if (ctx->vlan_present)
		e->tag = (__u32)bpf_ntohs(ctx->vlan_proto) << 16 | ctx->vlan_tci;
	if (summed == CHECKSUM_PARTIAL) {
		e->flags = HDR_NEEDS_CSUM;
		e->csum_start = csum_start(skb);
		e->csum_offset = skb->csum_offset;
	} else if (summed == CHECKSUM_UNNECESSARY) {
		e->flags = HDR_DATA_VALID;
	}
	if (ctx->gso_size) {
		e->gso_size = ctx->gso_size;
		e->hdr_len = ctx->len - skb->data_len; /* or a guess at it */
		e->gso_type = gso_type(skb);
	}
}

/* wake wakes up the worker that drives the intake, if it sleeps. */
static __always_inline void wake(struct shared *r, const __u32 *which)
{
	if (!READ_ONCE(r->bell) || !__sync_lock_test_and_set(&r->bell, 0))
		return; /* it is awake, or another processor was first */

	void *bell = bpf_map_lookup_elem(&kvswitch_bells, which);
	__u64 ring = 1;

	if (bell)
		bpf_ringbuf_output(bell, &ring, sizeof(ring), BPF_RB_FORCE_WAKEUP);
}

/* intake_of is the number of the frame's intake: its flow's, if there are several. */
static __always_inline __u32 intake_of(struct __sk_buff *ctx)
{
	return size.queues > 1 ? bpf_get_hash_recalc(ctx) % size.queues : 0;
}

/* data_at is where the frame's bytes from unit on go, but for what extra takes. */
static __always_inline void *data_at(struct shared *r, __u32 unit)
{
	return (void *)r + size.data + ((unit & (size.units - 1)) << UNIT_SHIFT);
}

/*
 * copy_long copies a frame beyond MAX_LEN. There is room behind the ring's end for
 * a frame of that length only, so its pieces go around the end, each for itself.
 */
static __always_inline void copy_long(struct __sk_buff *ctx, struct shared *r, __u32 unit, __u32 length)
{
	for (__u32 from = 0; from < LONG_LEN && from < length; from += PIECE) {
		void *to = data_at(r, unit + (from >> UNIT_SHIFT)) + sizeof(struct extra);
		__u32 piece = length - from;

		if (piece > PIECE)
			piece = PIECE;
		asm volatile("" : "+r"(piece)); /* the verifier doesn't know that it isn't 0 */
		if (piece > 0)
			bpf_skb_load_bytes(ctx, from, to, piece);
	}
}

/*
 * copy puts the frame into an intake and reports its place there, the number of
 * frames up to and with it. Or it counts why it can't.
 */
static __always_inline bool copy(struct __sk_buff *ctx, struct shared *r, const __u32 *which, __u32 *place)
{
	const struct sk_buff *skb = bpf_cast_to_kern_ctx(ctx);
	__u32 length = ctx->len, marks = 0, room = 0;
	__u8 summed = BPF_CORE_READ_BITFIELD(skb, ip_summed);
	__u64 at, *entry;
	void *to;

	if ((length > MAX_LEN && (length > LONG_LEN || !ctx->gso_size)) || length < HEADER_LEN) {
		__sync_fetch_and_add(&r->bad, 1);
		return false;
	}
	if (summed == CHECKSUM_PARTIAL || ctx->vlan_present || ctx->gso_size) {
		marks = ENTRY_EXTRA;
		room = sizeof(struct extra);
	} else if (summed == CHECKSUM_UNNECESSARY) {
		marks = ENTRY_VALID;
	}
	if (!reserve(r, (room + length + UNIT - 1) >> UNIT_SHIFT, &at)) {
		__sync_fetch_and_add(&r->lost, 1);
		return false;
	}
	to = data_at(r, at);
	if (marks & ENTRY_EXTRA) {
		describe(ctx, to);
		to += sizeof(struct extra);
	}
	/* That can't fail: the frame has that length. */
	if (length <= MAX_LEN)
		bpf_skb_load_bytes(ctx, 0, to, length);
	else
		copy_long(ctx, r, at, length);

	/*
	 * An exchange, because it orders what comes before and after: the frame's
	 * bytes before the entry, and the entry before the look at the bell. So no
	 * wake-up is lost.
	 */
	at >>= 32;
	entry = (void *)r + sizeof(*r) + (at & (size.entries - 1)) * sizeof(*entry);
	__sync_lock_test_and_set(entry, (at + 1) << ENTRY_NUMBER | marks | length);
	wake(r, which);
	*place = at + 1;
	return true;
}

/*
 * intake gives a frame to the worker, and returns what is to become of it:
 * nobody else gets it, but see shield.
 */
static __always_inline int intake(struct __sk_buff *ctx)
{
	__u32 which = intake_of(ctx), place;
	struct shared *r = bpf_map_lookup_elem(&kvswitch_frames, &which);

	if (r)
		copy(ctx, r, &which, &place);
	return shield(ctx);
}
