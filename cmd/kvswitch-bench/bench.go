package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/kvswitch/kvswitch/bench"

	"github.com/spf13/cobra"
)

func benchCommand(out, stderr io.Writer) *cobra.Command {
	var o bench.Options
	asJSON := false
	c := &cobra.Command{
		Use:   "bench",
		Short: "Race against the kernel's bridge and other switches on this machine",
		Long: `bench measures kvswitch, the kernel's bridge, Open vSwitch and vde_switch with the
same generator and the same receiver, taking turns, in network namespaces of its
own. It needs root, and a machine that does nothing else meanwhile: trials that
something disturbed are thrown out.

  kvswitch bench --quick                      see that it works: two or three minutes
  kvswitch bench --report results             everything, into a folder: half an hour
  kvswitch bench --tests bulk --against kernel

Sizes are for throughput and latency, numbers of flows for throughput. The order
of lists plays no part, and what is named twice counts once: every size is
measured with the lowest number of flows, the smallest with the others. What is
left out for other reasons is said in the report.

Ctrl-C ends it within seconds, and the report then has what there was; a second
one ends it at once. The report of such a run is called report-incomplete.html
and so on where it would replace that of a whole one.`,
		Args: func(cmd *cobra.Command, words []string) error {
			if len(words) > 0 {
				return usagef("want %q", cmd.UseLine())
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notEmpty(cmd); err != nil {
				return err
			}
			var tables bytes.Buffer
			o.Program = buildVersion()
			o.Progress, o.Out = stderr, &tables
			if err := o.Validate(); err != nil {
				return usagef("%w", err)
			}
			r, err := race(cmd.Context(), o)
			switch {
			case r == nil: // it may be writing still
			case asJSON:
				e := json.NewEncoder(out)
				e.SetIndent("", "  ")
				e.SetEscapeHTML(false)
				err = errors.Join(err, e.Encode(r))
			default:
				tables.WriteTo(out)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Against, "against", nil, "other switches: kernel,ovs,vde (default all that are installed)")
	f.StringVar(&o.Path, "path", bench.Paths[0], "how ends are attached: "+strings.Join(bench.Paths, ","))
	f.StringSliceVar(&o.Sizes, "sizes", nil, "frame sizes: bytes with FCS, imix, gso (default all of RFC 2544, imix, gso)")
	f.IntSliceVar(&o.Flows, "flows", nil, "numbers of address pairs (default 1,1000,100000)")
	f.IntVar(&o.Runs, "runs", 0, "rounds in which every contender has a turn (default 10, with --quick 2)")
	f.StringSliceVar(&o.Tests, "tests", nil, "some of "+strings.Join(bench.Tests, ","))
	f.StringVar(&o.ReportDir, "report", "", "write report.json, report.html and results.md into this folder")
	f.BoolVar(&o.Quick, "quick", false, "a smoke run, too short for conclusions")
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	for flag, values := range map[string][]string{
		"against": bench.Families, "path": bench.Paths, "sizes": bench.Sizes, "tests": bench.Tests,
	} {
		c.RegisterFlagCompletionFunc(flag, listed(values))
	}
	for _, flag := range []string{"flows", "runs"} {
		c.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	c.MarkFlagDirname("report")
	return c
}

// listed completes the last element of a comma-separated list by what is not in it
// yet.
func listed(values []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
		at := strings.LastIndexByte(text, ',') + 1
		before, begun := text[:at], text[at:]
		var out []string
		for _, v := range values {
			if strings.HasPrefix(v, begun) && !slices.Contains(strings.Split(before, ","), v) {
				out = append(out, before+v)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// notEmpty refuses flags that were given without a value, as a script's unset
// variable gives them: they would mean the default, and so everything.
func notEmpty(c *cobra.Command) error {
	for _, name := range []string{"against", "path", "sizes", "flows", "tests", "report"} {
		if f := c.Flags().Lookup(name); f.Changed && strings.Trim(f.Value.String(), "[] ") == "" {
			return usagef("--%s is empty", name)
		}
	}
	if f := c.Flags().Lookup("runs"); f.Changed && f.Value.String() == "0" {
		return usagef("--runs 0: want at least 1")
	}
	return nil
}

// race runs the bench until it is over or a signal stops it, which takes as long
// as tidying up does. A second signal does not wait for that, and there is no
// report then: contenders die with this process, and a guard of the bench removes
// its namespaces.
func race(ctx context.Context, o bench.Options) (*bench.Report, error) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var r *bench.Report
	done := make(chan error, 1)
	go func() {
		var err error
		r, err = bench.Run(ctx, o)
		done <- err
	}()
	var first os.Signal
	for {
		select {
		case err := <-done:
			if err != nil && first != nil {
				err = fmt.Errorf("stopped by %v: %w", first, err)
			}
			return r, err
		case sig := <-signals:
			if first != nil {
				return nil, fmt.Errorf("stopped by a second %v", sig)
			}
			first = sig
			cancel()
		}
	}
}
