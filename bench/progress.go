package bench

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress tells who waits what is going on: on a terminal one line that
// rewrites itself, elsewhere a line now and then.
type progress struct {
	w       io.Writer
	begin   time.Time
	live    bool
	columns int
	last    time.Time
	pending bool // the live line is on the screen
}

// pause between lines where they can't rewrite themselves.
const seldom = 10 * time.Second

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, begin: time.Now()}
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			p.live, p.columns = true, int(size.Col)
		}
	}
	return p
}

// step says what is being done now.
func (p *progress) step(format string, args ...any) {
	text := fmt.Sprintf("%4.0f s  ", time.Since(p.begin).Seconds()) + fmt.Sprintf(format, args...)
	if !p.live {
		if time.Since(p.last) >= seldom {
			p.last = time.Now()
			fmt.Fprintln(p.w, text)
		}
		return
	}
	if len(text) >= p.columns {
		text = text[:p.columns-1]
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", text)
	p.pending = true
}

// note says something that stays.
func (p *progress) note(format string, args ...any) {
	p.end()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// end takes the live line away.
func (p *progress) end() {
	if p.pending {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.pending = false
	}
}
