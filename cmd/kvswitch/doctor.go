package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/kvswitch/kvswitch/switch/host/doctor"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what this host has and lacks, a line each, with the mend",
		Long: `Tell what this host has and lacks, a line each, with the mend. The exit status
is 1 where something is missing that a part of the switch can't do without.`,
		Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			dir, err := filepath.Abs(a.runDir)
			if err != nil {
				return err
			}
			findings := doctor.ThisHost(dir, qemu.VHostAvailable).Examine()
			if a.json {
				if err := a.printJSON(findings); err != nil {
					return err
				}
				return lacking(findings)
			}
			width := a.width()
			for _, f := range findings {
				fmt.Fprintln(a.out, findingText(&f, width))
			}
			return lacking(findings)
		},
	}
	c.Flags().BoolVar(&a.json, "json", false, "print one JSON document")
	return c
}

// lacking fails where something is missing that a part of the switch needs: what
// it is has been printed.
func lacking(findings []doctor.Finding) error {
	for _, f := range findings {
		if f.Status == doctor.Missing {
			return errSaid
		}
	}
	return nil
}

// findingText is a finding in one line, or on a terminal in lines of its width.
func findingText(f *doctor.Finding, width int) string {
	head := fmt.Sprintf("%-8s %-17s ", f.Status, f.Check)
	text := f.Text
	if f.Mend != "" {
		text += " -> " + f.Mend
	}
	return head + wrap(text, len(head), width)
}

// narrow is the least room for text beside a margin that is worth wrapping for.
const narrow = 20

// wrap breaks text between words so that it fits into width columns right of a
// margin; width 0 is one line.
func wrap(text string, margin, width int) string {
	room := width - margin
	if room < narrow {
		return text
	}
	var b strings.Builder
	used := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case used == 0:
		case used+1+n > room:
			b.WriteString("\n" + strings.Repeat(" ", margin))
			used = 0
		default:
			b.WriteString(" ")
			used++
		}
		b.WriteString(word)
		used += n
	}
	return b.String()
}

// width is the terminal's that is written to, in columns; 0 if it is none.
func (a *app) width() int {
	f, ok := a.stdout.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
