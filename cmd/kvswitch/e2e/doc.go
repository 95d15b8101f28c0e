// Package e2e proves the built program from outside: it starts kvswitch run in
// network namespaces, speaks to it by its command line, puts frames on its
// ports' cables, and boots real guests on it. It has tests only.
//
// The binary is the one that KVSWITCH_BIN names, with kvswitch-bench beside it, or
// both are built once per run.
//
// Tests of what becomes of frames run both with the kernel forwarding what it can
// and without (run --in-kernel); all others in one mode, which their name decides.
// KVSWITCH_IN_KERNEL=auto or off makes all of them run in that one.
//
// Test names carry the numbers of the conformance cases they prove: L1–L16 for
// learning, forwarding and ageing, V1–V8 for VLANs.
package e2e
