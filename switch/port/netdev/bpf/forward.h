/* SPDX-License-Identifier: MIT OR GPL-2.0-only */

/*
 * The short way: a frame whose source is a current entry of the very port it came
 * by, and whose destination is one of another netdev port, never leaves the
 * kernel. forward(ctx) takes it, or says that it is the relay's; then nothing has
 * happened to it. What is decided here is a subset of what switch/relay decides,
 * and never differs from it: whatever is not plain is the relay's.
 *
 * The table is fdb's (fdb.h), the rows are made by package inkernel.
 */
#pragma once

#include "intake.h"
#include "order.h"
#include "../../../../fdb/fdb.h"

/* A port as the view has it: one cache line. Package inkernel writes it. */
struct row {
	/*
	 * One word, read once a frame: what is or-ed together below, and the
	 * flush generation in the lower 16 bits. The rest of the row, and of the
	 * port's VLANs, changes only while neither MAY_SEND nor MAY_RECEIVE is
	 * there, and not before every program that saw them has ended.
	 */
	__u64 state LINE;
	__u32 ifindex;
	__u32 max_len; /* of a frame without its tag; ~0 is no limit */
	__u16 pvid;
};

#define ROW_GEN 0xffff
#define MAY_RECEIVE (1 << 16) /* frames that come in by it */
#define MAY_SEND (1 << 17) /* frames that leave by it */
#define REFRESHES (1 << 18) /* sources it hears are young again */
#define ISOLATED (1 << 19)
#define UNTAGGED_ONLY (1 << 20)
#define TO_PEER (1 << 21) /* by bpf_redirect_peer */
#define TO_STACK (1 << 22) /* to the host's stack, as if it came in by the device */

#define MAX_PORTS 4096
#define VLAN_WORDS 64

/* Where a port's VLANs are told apart: bit sets by VLAN id. */
struct vlans {
	__u64 member[VLAN_WORDS];
	__u64 untagged[VLAN_WORDS];
};

/* What one processor has counted of one port. */
struct count {
	__u64 rx_frames, rx_bytes, tx_frames, tx_bytes;
};

struct tier {
	/*
	 * Nobody takes the short way after this, by the kernel's coarse clock in
	 * nanoseconds. It is moved as long as the process lives and the tree is
	 * served: a switch that can't hear BPDUs must not forward.
	 */
	__u64 until LINE;
	/* The filtering database; its buckets follow. */
	struct fdb fdb LINE;
};

/* Of the tier. Known to the verifier. */
struct tier_sizes {
	__u32 buckets; /* of the table, without overflow buckets; a power of two */
	__u32 filtering; /* VLANs are kept apart */
};
const volatile struct tier_sizes tier_size;

/* One value each, as long as it must be, but for the rows, which are an array. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tier);
} kvswitch_tier SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct row);
} kvswitch_rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct vlans);
} kvswitch_vlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_PORTS); /* for each processor */
	__type(key, __u32);
	__type(value, struct count);
} kvswitch_counts SEC(".maps");

/* What is known of a frame. */
struct way {
	__u32 in, out; /* port numbers */
	struct row *from, *to;
	__u32 vid;
	bool tagged; /* with a tag beside its bytes */
	bool refresh; /* the source's entry is to be */
	struct fdb_slot *source;
	fdb_u64 value, clock; /* of that, and when it was read */
};

/* Words as fdb's keys hold addresses, and EtherTypes in wire order. */
#define MAC_MASK ((1ULL << 48) - 1)
#define GROUP 1
#define TYPE_VLAN 0x0081
#define TYPE_QINQ 0xa888

/* has reports whether a set of VLANs has vid. */
static __always_inline bool has(const __u64 *set, __u32 vid)
{
	return set[vid >> 6 & (VLAN_WORDS - 1)] >> (vid & 63) & 1;
}

static __always_inline struct vlans *vlans_of(__u32 port)
{
	return bpf_map_lookup_elem(&kvswitch_vlans, &port);
}

/*
 * vlan finds the frame's VLAN where VLANs are kept apart, or reports that the
 * relay must.
 */
static __always_inline bool vlan(struct __sk_buff *ctx, struct way *w, __u64 state, bool in_band)
{
	struct vlans *v;

	if (in_band)
		return false;
	w->vid = w->from->pvid;
	if (w->tagged) {
		if (state & UNTAGGED_ONLY || ctx->vlan_proto != bpf_htons(ETH_P_8021Q))
			return false;
		w->vid = ctx->vlan_tci & 0xfff;
	}
	v = vlans_of(w->in);
	return w->vid && w->vid != 0xfff && v && has(v->member, w->vid);
}

/* fits_port reports that a frame is not too long for a port. */
static __always_inline bool fits_port(struct __sk_buff *ctx, const struct row *to, __u32 length)
{
	const struct sk_buff *skb = bpf_cast_to_kern_ctx(ctx);

	if (length <= to->max_len)
		return true;
	if (!ctx->gso_size || BPF_CORE_READ_BITFIELD(skb, ip_summed) != CHECKSUM_PARTIAL)
		return false;
	/* Each segment has the headers, and UDP's is the shortest. */
	return csum_start(skb) + 20 + ctx->gso_size <= to->max_len;
}

/* gen_of is the flush generation of a port, by the table. */
static __always_inline __u32 gen_of(struct tier *t, __u32 port)
{
	return READ_ONCE(t->fdb.head.gens[port & (FDB_MAX_PORTS - 1)]);
}

/*
 * known reports that the frame is one for the short way, apart from its turn: its
 * source is a current entry of the port it came by, and its destination one of
 * another port, and both may have it. head and tail are the frame's first 14 bytes,
 * as words. It fills in w.
 */
static __always_inline bool known(struct __sk_buff *ctx, struct tier *t, struct way *w, __u64 head, __u64 tail)
{
	__u64 from, to;
	fdb_u64 clock, value;
	__u32 length;
	bool in_band;

	in_band = tail >> 48 == TYPE_VLAN || tail >> 48 == TYPE_QINQ;
	from = READ_ONCE(w->from->state);
	if (!(from & MAY_RECEIVE))
		return false;
	w->tagged = ctx->vlan_present;
	w->vid = 1;
	if (tier_size.filtering && !vlan(ctx, w, from, in_band))
		return false;
	clock = fdb_load(&t->fdb.head.clock);
	w->source = fdb_find(&t->fdb, tier_size.buckets, fdb_key(tail & MAC_MASK, w->vid), &w->value);
	if (!w->source || fdb_port(w->value) != w->in || !fdb_current(&t->fdb, w->value, clock) || gen_of(t, w->in) != (from & ROW_GEN))
		return false;
	if (!fdb_find(&t->fdb, tier_size.buckets, fdb_key(head & MAC_MASK, w->vid), &value) || !fdb_current(&t->fdb, value, clock))
		return false;
	w->refresh = from & REFRESHES && fdb_kind(w->value) == FDB_DYNAMIC;
	w->clock = clock;
	w->out = fdb_port(value);
	w->to = bpf_map_lookup_elem(&kvswitch_rows, &w->out);
	if (!w->to || w->out == w->in)
		return false;
	to = READ_ONCE(w->to->state);
	if (!(to & MAY_SEND) || from & to & ISOLATED || gen_of(t, w->out) != (to & ROW_GEN))
		return false;
	if (tier_size.filtering) {
		struct vlans *v = vlans_of(w->out);

		if (!v || !has(v->member, w->vid))
			return false;
	}
	/* One tag, beside the frame or not, doesn't count, nor does one behind that. */
	length = ctx->len;
	if (w->tagged)
		length -= 4;
	else if (in_band)
		length -= 8;
	return fits_port(ctx, w->to, length);
}

/* add counts a frame that went the short way. */
static __always_inline void add(const struct way *w, __u32 rx, __u32 tx)
{
	__u32 mine = bpf_get_smp_processor_id() * MAX_PORTS, at = mine + w->in;
	struct count *c = bpf_map_lookup_elem(&kvswitch_counts, &at);

	/* Nobody else writes them: programs at tc hooks of one processor don't interrupt each other. */
	if (c) {
		c->rx_frames++;
		c->rx_bytes += rx;
	}
	at = mine + w->out;
	c = bpf_map_lookup_elem(&kvswitch_counts, &at);
	if (c) {
		c->tx_frames++;
		c->tx_bytes += tx;
	}
}

/* retag gives the frame the tag that it wears on the way out, or reports that this failed. */
static __always_inline bool retag(struct __sk_buff *ctx, const struct way *w, bool untagged)
{
	if (w->tagged)
		return !untagged || !bpf_skb_vlan_pop(ctx);
	return untagged || !bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021Q), w->vid);
}

/* carry sends the frame on its way, and returns the verdict. */
static __always_inline int carry(struct __sk_buff *ctx, const struct way *w)
{
	__u64 state = READ_ONCE(w->to->state);
	__u32 length = ctx->len + (w->tagged ? 4 : 0), sent = length;

	if (tier_size.filtering) {
		struct vlans *v = vlans_of(w->out);
		bool untagged = v && has(v->untagged, w->vid);

		if (!retag(ctx, w, untagged))
			return TC_ACT_SHOT; /* no memory */
		sent += (untagged ? 0 : 4) - (w->tagged ? 4 : 0);
	}
	add(w, length, sent);
	if (state & TO_PEER) {
		/* Before Linux 6.15 it stays as it was found: a stranger's, which IP would drop. */
		bpf_skb_change_type(ctx, PACKET_HOST);
		return bpf_redirect_peer(w->to->ifindex, 0);
	}
	return bpf_redirect(w->to->ifindex, state & TO_STACK ? BPF_F_INGRESS : 0);
}

/*
 * flow_hash is of what makes a flow: source, destination, VLAN. The VLAN is the one
 * that the frame is in, with a tag or without: both may lead to the same.
 */
static __always_inline __u64 flow_hash(struct __sk_buff *ctx, struct tier *t, const struct row *from, __u64 head, __u64 tail)
{
	__u64 h = (head & MAC_MASK) + t->fdb.head.first[0], vid = 0;

	if (tier_size.filtering) {
		if (ctx->vlan_present && ctx->vlan_proto == bpf_htons(ETH_P_8021Q))
			vid = ctx->vlan_tci & 0xfff;
		if (!vid && from)
			vid = from->pvid;
		h += vid << 48;
	}
	h = (h ^ h >> 32) * 0x9e3779b97f4a7c15;
	h += (tail & MAC_MASK) ^ t->fdb.head.second[0];
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93;
	return h ^ h >> 32;
}

/* forward takes a frame the short way, or gives it to the worker. */
static __always_inline int forward(struct __sk_buff *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0, which = intake_of(ctx), place;
	struct shared *r = bpf_map_lookup_elem(&kvswitch_frames, &which);
	struct notes *notes = bpf_map_lookup_elem(&kvswitch_notes, &which);
	struct tier *t = bpf_map_lookup_elem(&kvswitch_tier, &zero);
	__u64 head, tail, now;
	struct way w = {};
	struct flow f;
	int turn = ORDER_WAIT;
	bool mine = false;

	if (!r || !t || !notes)
		return shield(ctx);
	if (data + HEADER_LEN > end || (*(__u64 *)data | *(__u64 *)(data + 6)) & GROUP) {
		copy(ctx, r, &which, &place);
		return shield(ctx);
	}
	head = *(__u64 *)data;
	tail = *(__u64 *)(data + 6);
	now = bpf_ktime_get_coarse_ns();
	w.in = READ_ONCE(r->port) - 1;
	w.from = bpf_map_lookup_elem(&kvswitch_rows, &w.in);
	f = flow_of(notes, flow_hash(ctx, t, w.from, head, tail), now);
	if (w.from && now < READ_ONCE(t->until) && known(ctx, t, &w, head, tail)) {
		mine = true;
		turn = may_pass(r, &f);
	}
	if (turn == ORDER_GO) {
		if (w.refresh)
			fdb_refresh(w.source, w.value, w.clock);
		return carry(ctx, &w);
	}
	if (turn == ORDER_DRAIN)
		__sync_fetch_and_add(&r->lost, 1);
	else if (copy(ctx, r, &which, &place))
		note_place(r, &f, place);
	else if (mine)
		let_drain(&f);
	return shield(ctx);
}
