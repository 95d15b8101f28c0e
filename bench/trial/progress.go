package trial

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Progress tells who waits what is going on, how much of the run is done and about
// how long the rest takes: on a terminal one line that rewrites itself, elsewhere a
// line now and then.
type Progress struct {
	w       io.Writer
	now     func() time.Time
	begin   time.Time
	ahead   forecast
	live    bool
	columns int
	last    time.Time
	pending bool // the live line is on the screen
}

// seldom is the pause between lines where they can't rewrite themselves.
const seldom = 10 * time.Second

// NewProgress writes to w, which is taken for a terminal if it is one.
func NewProgress(w io.Writer) *Progress {
	p := &Progress{w: w, now: time.Now, begin: time.Now()}
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			p.live, p.columns = true, int(size.Col)
		}
	}
	return p
}

// Expect says what all parts of the run that Begin will name are expected to take.
func (p *Progress) Expect(total time.Duration) { p.ahead.total = total }

// Begin says that the next part of the run is under way.
func (p *Progress) Begin(expected time.Duration) { p.ahead.begin(expected) }

// Part says how many of the equal steps of the part under way are done.
func (p *Progress) Part(done, of int) { p.ahead.part(done, of) }

// Step says what is being done now.
func (p *Progress) Step(format string, args ...any) {
	now := p.now()
	if !p.live && now.Sub(p.last) < seldom {
		return
	}
	elapsed := now.Sub(p.begin)
	text := fmt.Sprintf("%4.0f s", elapsed.Seconds())
	if ahead := p.ahead.after(elapsed); ahead != "" {
		text += ", " + ahead
	}
	text += "  " + fmt.Sprintf(format, args...)
	if !p.live {
		p.last = now
		fmt.Fprintln(p.w, text)
		return
	}
	if len(text) >= p.columns {
		text = text[:p.columns-1]
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", text)
	p.pending = true
}

// Note says something that stays.
func (p *Progress) Note(format string, args ...any) {
	p.End()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// End takes the live line away.
func (p *Progress) End() {
	if p.pending {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.pending = false
	}
}
