package main

import (
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/kvswitch/kvswitch/bench"

	"github.com/spf13/cobra"
)

func (a *app) benchCommand() *cobra.Command {
	var o bench.Options
	c := &cobra.Command{
		Use:   "bench",
		Short: "Race against the kernel's bridge and other switches on this machine",
		Long: `bench measures kvswitch, the kernel's bridge, Open vSwitch and vde_switch with the
same generator and the same receiver, taking turns, in network namespaces of its
own. It needs root, and a machine that does nothing else meanwhile: trials that
something disturbed are thrown out.

  kvswitch bench --quick                      see that it works: two or three minutes
  kvswitch bench --report results             everything, into a folder: half an hour
  kvswitch bench --tests bulk --against kernel`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Program = buildVersion()
			o.Progress, o.Out = a.stderr, a.out
			if a.json {
				o.Out = io.Discard
			}
			if err := o.Validate(); err != nil {
				return usagef("%w", err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			r, err := bench.Run(ctx, o)
			if a.json && r != nil {
				if e := a.printJSON(r); err == nil {
					err = e
				}
			}
			return err
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Against, "against", nil, "other switches: kernel,ovs,vde (default all that are installed)")
	f.StringVar(&o.Path, "path", bench.Paths[0], "how ends are attached: "+strings.Join(bench.Paths, ","))
	f.StringSliceVar(&o.Sizes, "sizes", nil, "frame sizes: bytes with FCS, imix, gso (default all of RFC 2544, imix, gso)")
	f.IntSliceVar(&o.Flows, "flows", nil, "numbers of address pairs (default 1,1000,100000)")
	f.IntVar(&o.Runs, "runs", 0, "rounds in which every contender has a turn (default 10, with --quick 3)")
	f.StringSliceVar(&o.Tests, "tests", nil, "some of "+strings.Join(bench.Tests, ","))
	f.StringVar(&o.ReportDir, "report", "", "write report.json, report.html and results.md into this folder")
	f.BoolVar(&o.Quick, "quick", false, "a smoke run, too short for conclusions")
	f.BoolVar(&a.json, "json", false, "print one JSON document")
	return c
}
