package loglimit

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Queue is a slog.Handler whose caller never waits for a disk, a pipe that nobody
// reads or a terminal that somebody stopped: lines are written by a goroutine of
// its own, in their order. What finds no room is left out, and counted in the log
// when that is read again.
type Queue struct {
	next slog.Handler
	*queue
}

// queue is what a Queue and all that come from it have in common.
type queue struct {
	lines  chan line
	lost   atomic.Int64
	once   sync.Once
	closed chan struct{} // no more lines are queued
	ended  chan struct{} // all are written
}

type line struct {
	record slog.Record
	next   slog.Handler
}

// queueRoom is how many lines may wait: a start of a thousand ports says no more.
const queueRoom = 4096

// NewQueue makes a Queue before next. Close ends it.
func NewQueue(next slog.Handler) *Queue {
	q := &Queue{next, &queue{lines: make(chan line, queueRoom), closed: make(chan struct{}), ended: make(chan struct{})}}
	go q.write()
	return q
}

// Enabled implements slog.Handler.
func (q *Queue) Enabled(ctx context.Context, level slog.Level) bool {
	return q.next.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (q *Queue) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Queue{q.next.WithAttrs(attrs), q.queue}
}

// WithGroup implements slog.Handler.
func (q *Queue) WithGroup(name string) slog.Handler {
	return &Queue{q.next.WithGroup(name), q.queue}
}

// Handle implements slog.Handler. What comes after Close is lost.
func (q *Queue) Handle(_ context.Context, r slog.Record) error {
	select {
	case q.lines <- line{r.Clone(), q.next}:
	default:
		q.lost.Add(1)
	}
	return nil
}

func (q *Queue) write() {
	defer close(q.ended)
	for {
		select {
		case l := <-q.lines:
			_ = l.next.Handle(context.Background(), l.record) // nobody is left to be told
			continue
		default:
		}
		q.tell()
		select {
		case l := <-q.lines:
			_ = l.next.Handle(context.Background(), l.record)
		case <-q.closed:
			if len(q.lines) == 0 {
				q.tell()
				return
			}
		}
	}
}

// tell writes how many lines there was no room for, behind those that there was.
func (q *Queue) tell() {
	n := q.lost.Swap(0)
	if n == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "the log was not read: lines are missing", 0)
	r.AddAttrs(slog.Int64(LeftOut, n))
	_ = q.next.Handle(context.Background(), r)
}

// Close waits until all lines are written, but no longer than patience: whoever
// doesn't read the log does not keep the program from ending.
func (q *Queue) Close(patience time.Duration) {
	q.once.Do(func() { close(q.closed) })
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-q.ended:
	case <-t.C:
	}
}
