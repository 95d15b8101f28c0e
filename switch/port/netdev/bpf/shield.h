/* SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only */
#pragma once

#include "kernel.h"

/*
 * shield keeps a frame from the host's stack, unless it is an untagged 802.2
 * frame: the control socket waits further on for those, and IP has nothing to do
 * with them.
 */
static __always_inline int shield(struct __sk_buff *ctx)
{
	if (ctx->protocol == bpf_htons(ETH_P_802_2) && !ctx->vlan_present)
		return TC_ACT_OK;
	return TC_ACT_SHOT;
}
