/* SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only */
#pragma once

#include "kernel.h"

/* Not 0 where the port is an uplink. The control side writes it: linklocal.go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} kvswitch_uplink SEC(".maps");

/* 802.1X, linux/if_ether.h. */
#define ETH_P_PAE 0x888E

/* What the host's network layers take, who must not be reached past the switch. */
static __always_inline bool is_network(__u32 protocol)
{
	switch (protocol) {
	case bpf_htons(0x0800): /* IPv4 */
	case bpf_htons(0x0806): /* ARP */
	case bpf_htons(0x8035): /* RARP */
	case bpf_htons(0x86DD): /* IPv6 */
	case bpf_htons(0x8847): /* MPLS */
	case bpf_htons(0x8848):
	case bpf_htons(0x8863): /* PPPoE */
	case bpf_htons(0x8864):
	case bpf_htons(0x8100): /* tags */
	case bpf_htons(0x88A8):
		return true;
	}
	return false;
}

/* to_bridge reports a frame to 01:80:c2:00:00:00-0f, which no bridge forwards (802.1Q table 8-1). */
static __always_inline bool to_bridge(const __u8 *dst)
{
	return dst[0] == 0x01 && dst[1] == 0x80 && dst[2] == 0xc2 && !dst[3] && !dst[4] && dst[5] < 0x10;
}

/*
 * for_host reports a frame by which the switch at the other end of an uplink
 * speaks with this host, not with its guests: 802.1X, LLDP, LACP and their like.
 * The authenticator of 802.1X may answer to the device's own address.
 */
static __always_inline bool for_host(struct __sk_buff *ctx)
{
	const __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0, *uplink;

	if (data + 14 > end || ctx->vlan_present || is_network(ctx->protocol))
		return false;
	if (!to_bridge(data) && !(ctx->protocol == bpf_htons(ETH_P_PAE) && ctx->pkt_type == PACKET_HOST))
		return false;
	uplink = bpf_map_lookup_elem(&kvswitch_uplink, &zero);
	return uplink && *uplink;
}

/*
 * shield keeps a frame from the host's stack, unless it is an untagged 802.2
 * frame, for which the control socket waits further on, and with which IP has
 * nothing to do, or one that is for_host.
 */
static __always_inline int shield(struct __sk_buff *ctx)
{
	if (ctx->protocol == bpf_htons(ETH_P_802_2) && !ctx->vlan_present)
		return TC_ACT_OK;
	return for_host(ctx) ? TC_ACT_OK : TC_ACT_SHOT;
}
