/* SPDX-License-Identifier: MIT */

/* Counts probes (package probe) where they arrive: sink.go. */

#include "kernel.h"

/* Offsets in a frame, as in package probe. */
#define DESTINATION 0
#define SOURCE 6
#define STAMP 42 /* after the UDP header */
#define STAMP_GSO 54 /* after the TCP header of a super-frame */
#define STAMP_LEN 18

/* What stands there. */
#define STATION bpf_htons(0x026b) /* the first two octets of a station's address */
#define MARK bpf_htons(0x6b76)

/* As in bucket.go, and there explained. */
#define SUB_BITS 7
#define SUB_BUCKETS (1 << SUB_BITS)
#define MAX_POWER 36
#define BUCKETS ((MAX_POWER - SUB_BITS + 2) * SUB_BUCKETS)

/*
 * What is counted at a port. It is one for each processor and this is softirq, so
 * plain increments do.
 */
struct counts {
	__u64 port; /* the port's number: given, not counted */
	__u64 frames; /* probes that belong here, or to a group */
	__u64 bytes; /* of those, without frame check sequence */
	__u64 segments; /* of those, as they would be on a wire */
	__u64 foreign; /* anything that no station sent */
	__u64 astray; /* probes to a station of another port: flooded, or misdelivered */
	__u64 late; /* probes with a lower sequence number than one before them */
	__u64 next; /* the sequence number that is due */
};

struct latencies {
	__u64 buckets[BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} kvswitch_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct latencies);
} kvswitch_delays SEC(".maps");

/* bucket is that of a latency in nanoseconds. */
static __always_inline __u32 bucket(__u64 ns)
{
	__u32 power = 0, i;
	__u64 rest = ns;

	if (ns < SUB_BUCKETS)
		return ns;
#pragma unroll
	for (int step = 32; step > 0; step /= 2) {
		if (rest >> step) {
			rest >>= step;
			power += step;
		}
	}
	i = (power - SUB_BITS + 1) << SUB_BITS | (ns >> (power - SUB_BITS) & (SUB_BUCKETS - 1));
	return i < BUCKETS ? i : BUCKETS - 1;
}

/* time adds the latency of a frame that was stamped with the time then. */
static __always_inline void time(__u64 then)
{
	const __u32 only = 0;
	struct latencies *l = bpf_map_lookup_elem(&kvswitch_delays, &only);
	__u64 now = bpf_ktime_get_ns();
	__u32 i = bucket(now > then ? now - then : 0); /* clocks of two CPUs: less than nothing is nothing */

	if (l && i < BUCKETS)
		l->buckets[i]++;
}

/* count counts one frame, whose stamp is at that offset if it is a probe. */
static __always_inline void count(struct __sk_buff *ctx, int stamp)
{
	const __u32 only = 0;
	const int need = stamp + STAMP_LEN;
	struct counts *c = bpf_map_lookup_elem(&kvswitch_counts, &only);
	void *frame = (void *)(long)ctx->data;
	__u64 sequence, then;

	if (!c)
		return;
	if (frame + need > (void *)(long)ctx->data_end) {
		/* The start may lie outside the linear part. */
		bpf_skb_pull_data(ctx, need);
		frame = (void *)(long)ctx->data;
		if (frame + need > (void *)(long)ctx->data_end)
			return; /* shorter than a probe */
	}
	if (*(__be16 *)(frame + SOURCE) != STATION) {
		c->foreign++;
		return;
	}
	if (*(__be16 *)(frame + DESTINATION) == STATION && *(__u8 *)(frame + DESTINATION + 2) != c->port) {
		c->astray++;
		return;
	}
	c->frames++;
	c->bytes += ctx->len;
	c->segments += ctx->gso_segs ? ctx->gso_segs : 1;
	if (*(__be16 *)(frame + stamp) != MARK)
		return; /* a later segment of a super-frame */
	sequence = bpf_ntohl(*(__be32 *)(frame + stamp + 2));
	if (sequence < c->next)
		c->late++;
	else
		c->next = sequence + 1;
	then = bpf_be64_to_cpu(*(__be64 *)(frame + stamp + 6));
	if (then)
		time(then);
}

/* The frame goes no further up the receiver's stack. */

SEC("tc")
int kvswitch_count(struct __sk_buff *ctx)
{
	count(ctx, STAMP);
	return TC_ACT_SHOT;
}

SEC("tc")
int kvswitch_supers(struct __sk_buff *ctx)
{
	count(ctx, STAMP_GSO);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "MIT";
