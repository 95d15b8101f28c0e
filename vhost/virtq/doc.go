// Package virtq is the split virtqueue of virtio 1.2, clause 2.7: the device's
// side (Device), the driver's side (Driver), and the guest memory they meet in
// (Memory).
//
// The device's side trusts nothing that is in guest memory. Every word is read
// once, into private memory, and the copy is validated; chains, indirect tables
// and indices are bounded by the queue size; a Fault names what is wrong. A bad
// chain costs that chain; a bad ring (a Fault returned by Take) can't be used any
// more.
//
// It does not know what the buffers carry, keeps no goroutine, makes no system
// call and allocates nothing once set up. It offers neither EVENT_IDX, which
// needs a 16-bit atomic store that Go lacks, nor packed rings.
//
// A Device, a Driver and a Batch each belong to one goroutine at a time. A
// Memory is immutable and may be shared. The memory under it must lie outside
// Go's heap (a mapping): the other side writes to it at any time. When that
// side can also truncate the file beneath, accesses fault, and the caller must
// be ready for it (debug.SetPanicOnFault and recover): nothing here recovers.
//
// Memory order. Both halves of the 32-bit word at the start of the available
// ring (flags, idx) are written by the driver alone, and both halves of the used
// ring's by the device alone. So each side loads and stores whole words with
// 32-bit atomics, which are sequentially consistent in Go, and every place that
// depends on order says on what.
package virtq
