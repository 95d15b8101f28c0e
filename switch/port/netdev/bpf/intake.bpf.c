/* SPDX-License-Identifier: MIT OR GPL-2.0-only */

/* The program at tc ingress that fills intakes: intake.go. */

#include "intake.h"

SEC("tc")
int kvswitch_intake(struct __sk_buff *ctx)
{
	return intake(ctx);
}

/* The kernel's functions may be called by programs under the GPL only. */
char _license[] SEC("license") = "Dual MIT/GPL";
