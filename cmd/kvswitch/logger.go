package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// logger writes lines of the given format, by default what suits w: text on a
// terminal, for the journal where systemd leads w there, as stream
// ($JOURNAL_STREAM, systemd.exec(5)) says, else JSON.
func logger(format string, w io.Writer, stream string) (*slog.Logger, error) {
	if format == "" {
		format = "json"
		if f, ok := w.(*os.File); ok {
			switch {
			case isTerminal(f):
				format = "text"
			case stream != "" && !isFile(f):
				format = "journal"
			}
		}
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	case "journal":
		return slog.New(newJournalHandler(w)), nil
	}
	return nil, usagef("--log-format %q: want text, json or journal", strings.TrimSpace(format))
}

// isFile reports a file of one's own. A service whose log was sent there has
// inherited a JOURNAL_STREAM that is not about it; a socket is the journal's, and
// what reads a pipe passes lines on to it, as a rule.
func isFile(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode().IsRegular()
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// journalHandler writes plain lines as the journal wants them: the priority in
// front (sd-daemon(3)), no time, which the journal knows better, and words rather
// than quotes where they will do.
type journalHandler struct {
	mu   *sync.Mutex
	out  io.Writer
	line *bytes.Buffer // what text is writing
	text slog.Handler  // all but priority and message
}

func newJournalHandler(w io.Writer) *journalHandler {
	line := new(bytes.Buffer)
	text := slog.NewTextHandler(line, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}})
	return &journalHandler{mu: new(sync.Mutex), out: w, line: line, text: text}
}

// priority is a level as syslog(3) has it.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

func (h *journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.text.Enabled(ctx, l)
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	// A line of the log is a line: what follows a newline would have no priority.
	words := append([]string{r.Message}, strings.TrimSpace(h.line.String()))
	_, err := io.WriteString(h.out, priority(r.Level)+strings.Join(strings.Fields(strings.Join(words, " ")), " ")+"\n")
	return err
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.text = h.text.WithAttrs(attrs)
	return &c
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.text = h.text.WithGroup(name)
	return &c
}
