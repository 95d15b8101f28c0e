/* SPDX-License-Identifier: MIT OR GPL-2.0-only */

/* The program at tc ingress of a port where the kernel forwards: forward.h. */

#include "forward.h"

SEC("tc")
int kvswitch_forward(struct __sk_buff *ctx)
{
	return forward(ctx);
}

/* The kernel's functions may be called by programs under the GPL only. */
char _license[] SEC("license") = "Dual MIT/GPL";
