/* SPDX-License-Identifier: Apache-2.0 */

/* The program at tc ingress where the kernel has no intake: shield.go. */

#include "shield.h"

SEC("tc")
int kvswitch_shield(struct __sk_buff *ctx)
{
	return shield(ctx);
}

char _license[] SEC("license") = "Apache-2.0";
