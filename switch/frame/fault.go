package frame

import "runtime"

// MemoryFault is what the runtime panics with when memory can't be accessed
// (SIGSEGV, SIGBUS), in a goroutine that has called debug.SetPanicOnFault(true).
// Addr is the address of the access that failed.
//
// A nil pointer is not reported as one: that is a fault of ours.
type MemoryFault interface {
	runtime.Error
	Addr() uintptr
}

// FaultOf is the rule of every recovery: memory that a peer took away costs that
// peer its port, any other panic is a fault of ours and goes on. cause is what
// recover returned, called directly in the deferred function:
//
//	defer func() {
//		if fault := frame.FaultOf(recover()); fault != nil {
//			…
//		}
//	}()
//
// The result is nil if nothing panicked.
func FaultOf(cause any) MemoryFault {
	if cause == nil {
		return nil
	}
	fault, ok := cause.(MemoryFault)
	if !ok {
		panic(cause)
	}
	return fault
}

// Faulter is implemented by queues whose frames lie in memory that their peer
// can take away, as a guest does when it truncates its memory file: reading a
// lent byte then faults, wherever it is read. A worker that drives such queues
// calls debug.SetPanicOnFault(true) once and recovers with FaultOf around each
// turn from Rx to Release. A fault is then in a frame that was lent, because
// ports recover by themselves from faults in the memory they send to: the worker
// drops what is left of the turn, calls Fault, then Release, and goes on.
type Faulter interface {
	// Fault takes the port down with err as the reason. It never blocks.
	Fault(err error)
}
