/* SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only */

/*
 * What our programs use of the kernel's types. There is no vmlinux.h here: it
 * would be that of one kernel, and three megabytes long.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef _Bool bool;
enum { false, true };

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

/* Part of the kernel's ABI, linux/bpf.h and linux/pkt_cls.h. */

enum {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_F_MMAPABLE = 1 << 10,
	BPF_RB_FORCE_WAKEUP = 1 << 1,
};

/* Verdicts: TCX_PASS and TCX_DROP are the same. */
enum { TC_ACT_OK = 0, TC_ACT_SHOT = 2 };

/* linux/if_packet.h: a frame that is for this host. */
enum { PACKET_HOST = 0 };

/* bpf_redirect: to the device's receiving side, not by it. */
enum { BPF_F_INGRESS = 1 };

/* linux/if_ether.h: what skb->protocol is where a frame has a length in place of an EtherType. */
#define ETH_P_802_2 0x0004
#define ETH_P_8021Q 0x8100

/* What a program is given of a frame. The order of fields is the ABI. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol; /* in network byte order */
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto; /* in network byte order */
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

/*
 * No ABI: the loader looks up where the running kernel has these fields, by
 * their names (CO-RE). Only those that are used are here, in no order that means
 * anything. linux/skbuff.h.
 */

struct sk_buff {
	__u32 data_len; /* of len, what lies in fragments */
	__u8 ip_summed : 2;
	__u16 csum_start; /* from head */
	__u16 csum_offset; /* from csum_start */
	__u32 end; /* from head: where struct skb_shared_info is */
	unsigned char *head;
	unsigned char *data; /* the frame begins here */
} __attribute__((preserve_access_index));

struct skb_shared_info {
	__u32 gso_type;
} __attribute__((preserve_access_index));

enum {
	CHECKSUM_UNNECESSARY = 1,
	CHECKSUM_PARTIAL = 3,
};

enum {
	SKB_GSO_TCPV4 = 1 << 0,
	SKB_GSO_TCP_ECN = 1 << 2,
	SKB_GSO_TCPV6 = 1 << 4,
	SKB_GSO_GRE = 1 << 6,
	SKB_GSO_GRE_CSUM = 1 << 7,
	SKB_GSO_IPXIP4 = 1 << 8,
	SKB_GSO_IPXIP6 = 1 << 9,
	SKB_GSO_UDP_TUNNEL = 1 << 10,
	SKB_GSO_UDP_TUNNEL_CSUM = 1 << 11,
	SKB_GSO_TUNNEL_REMCSUM = 1 << 13,
	SKB_GSO_ESP = 1 << 15,
	SKB_GSO_UDP = 1 << 16,
	SKB_GSO_UDP_L4 = 1 << 17,
};

/* Functions of the kernel, from Linux 6.2 on. */

/* The frame itself behind what a program is given of it. */
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

/* What lies at an address, taken for a type of the kernel's, to be read. */
extern void *bpf_rdonly_cast(const void *at, __u32 type) __ksym;

/* Memory that others write, too. */
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, to) (*(volatile typeof(x) *)&(x) = (to))
