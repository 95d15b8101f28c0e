// Package loglimit keeps a log from being filled by those whom the log is about:
// a guest that sets its link up and down, a user who is refused again and again,
// a peer that connects and goes.
//
// Handler is a slog.Handler in front of the one that writes. It lets the first
// lines of each cause through and holds back what comes after; every Window it
// writes the last line that it held back, with the number of those that it left
// out. So a flood costs a line each Window and cause, and the last state of
// things is always in the log. It knows no line by name: what a program adds to
// its log tomorrow is limited, too.
//
// Queue is another, which has the lines written by a goroutine of its own, so that
// a log that nobody reads holds nobody up.
//
// They limit nothing else than lines: events and counters are exact. Any goroutine
// may use them and all that come from them.
package loglimit

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// Burst is how many lines of one cause are written before any is held back:
	// a person's doings, and a start's, are written whole.
	Burst = 10
	// Window is how long lines of a cause are counted together, and how often
	// one that is held back is told of.
	Window = 10 * time.Second
	// LeftOut is the key of the number of lines that are not in the log.
	LeftOut = "left_out"
	// maxCauses bounds the memory: a switch of 4095 ports has no more in any
	// Window than its ports coming and going. Beyond it all lines of one message
	// are one cause.
	maxCauses = 16384
)

// subjects are the keys that say whom or what a line is about. They and the
// message are a line's cause; other values, errors above all, are of the
// outsider's choosing.
var subjects = []string{"port", "vm", "uid", "step", "vlan"}

// Handler limits lines. Make one with New.
type Handler struct {
	next  slog.Handler
	about string // subjects of With, as part of a cause
	*limit
}

// limit is what a Handler and all that come from it have in common.
type limit struct {
	mu     sync.Mutex
	began  time.Time // of the present Window
	causes map[string]*cause
	timer  *time.Timer // while a line is held back
}

// cause is what became of a cause's lines in the present Window.
type cause struct {
	written int
	held    int // lines that are not written, last among them
	last    slog.Record
	next    slog.Handler // last's
}

// New makes a Handler before next.
func New(next slog.Handler) *Handler {
	return &Handler{next: next, limit: &limit{causes: make(map[string]*cause)}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	about := h.about
	for _, a := range attrs {
		about += subject(a)
	}
	return &Handler{h.next.WithAttrs(attrs), about, h.limit}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.next.WithGroup(name), h.about, h.limit}
}

// subject is an attribute as part of a cause; "" if it is none.
func subject(a slog.Attr) string {
	if !slices.Contains(subjects, a.Key) {
		return ""
	}
	return "\x00" + a.Key + "=" + a.Value.String()
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	var key strings.Builder
	key.WriteString(r.Message)
	key.WriteString(h.about)
	r.Attrs(func(a slog.Attr) bool {
		key.WriteString(subject(a))
		return true
	})
	if h.hold(key.String(), r, h.next) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// hold decides whether a line is held back.
func (l *limit) hold(key string, r slog.Record, next slog.Handler) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.timer == nil && now.Sub(l.began) >= Window {
		l.began = now
		clear(l.causes) // nothing is held back
	}
	c := l.causes[key]
	if c == nil && len(l.causes) >= maxCauses {
		key = r.Message // so many more at most as there are messages
		c = l.causes[key]
	}
	if c == nil {
		c = new(cause)
		l.causes[key] = c
	}
	if c.written < Burst {
		c.written++
		return false
	}
	c.held++
	c.last, c.next = r.Clone(), next
	if l.timer == nil {
		l.timer = time.AfterFunc(Window, l.Flush)
	}
	return true
}

// Flush writes what is held back now, in the order in which it happened. Whoever
// had lines held back has all further ones held back until a Window has passed
// without any. Call it once more when the program ends.
func (l *limit) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	var held []*cause
	for key, c := range l.causes {
		if c.held == 0 {
			delete(l.causes, key)
			continue
		}
		held = append(held, &cause{held: c.held, last: c.last, next: c.next})
		*c = cause{written: Burst}
	}
	slices.SortFunc(held, func(a, b *cause) int { return a.last.Time.Compare(b.last.Time) })
	for _, c := range held {
		if c.held > 1 {
			c.last.AddAttrs(slog.Int(LeftOut, c.held-1))
		}
		_ = c.next.Handle(context.Background(), c.last) // nobody is left to be told
	}
	l.began = time.Now()
}
