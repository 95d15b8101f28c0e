package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/daemon"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// runFlags are the flags of `run` that are words of the configuration file,
// too. What stands between backquotes is what the flag takes.
var runFlags = []struct{ word, usage string }{
	{"name", "`NAME` of the switch (default kvs0)"},
	{"host", "`NAME`[,key=value]... of the host interface, by which this host is on the segment (default the switch's)"},
	{"mac", "the switch's own address `MAC` (default the first uplink's, else one made up and kept)"},
	{"mtu", "MTU `N` of the host interface and of taps made here (default the first uplink's, else 1500)"},
	{"stp", "spanning tree `MODE`: rstp, stp or off (default rstp)"},
	{"priority", "bridge priority `N`, 0–65535 (default 32768)"},
	{"ageing", "forget a station after `DURATION` without a frame (default 300s)"},
	{"max-entries", "learn at most `N` stations (default 65536)"},
	{"workers", "number `N` of forwarding threads (default 1)"},
	{"busy-poll", "after work, poll for `DURATION` before sleeping; or always, or 0 (default 20us)"},
	{"in-kernel", "`MODE` auto: frames between known stations at network interfaces never leave the kernel; off: the workers carry all (default auto)"},
	{"group", "let the members of group `NAME` control the switch (default the group of who runs it)"},
	{"metrics", "serve Prometheus metrics on `ADDR:PORT`"},
}

func (a *app) runCommand() *cobra.Command {
	o := daemon.Options{Version: buildVersion()}
	var logFormat string
	var filtering, noHost, check bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Run a switch until it is told to stop",
		Long: `Run a switch. With no options it is called kvs0, has a host interface kvs0 and
no uplink, and is ready for virtual machines. It is ready when its control
socket answers, and stops on SIGTERM or SIGINT; a second one stops it at once.
SIGHUP makes it read its --config file anew.

` + specHelp(),
		Args:              args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := c.Flags()
	values := map[string]*string{}
	for _, r := range runFlags {
		values[r.word] = f.String(r.word, "", r.usage)
	}
	f.StringVar(&o.File, "config", "", "read `FILE`, YAML with the same words; flags count more")
	f.BoolVar(&check, "check", false, "say what is wrong with file and flags, and start nothing")
	f.StringArrayVar(&o.Uplinks, "uplink", nil, "attach network card `IF`[,key=value]..., or another way to other switches by its SPEC (may be repeated)")
	f.StringArrayVar(&o.Ports, "port", nil, "attach a port by its `SPEC` (may be repeated)")
	f.BoolVar(&noHost, "no-host", false, "no host interface")
	f.BoolVar(&o.KeepHost, "keep-host", false, "leave the host interface, with its addresses, when the switch stops: the next one takes it over")
	f.BoolVar(&filtering, "vlan-filtering", false, "keep VLANs apart (802.1Q)")
	f.StringVar(&logFormat, "log-format", "", "log as `FORMAT` text, json or journal (default text on a terminal, journal under systemd, else json)")
	completeFlags(c, map[string]cobra.CompletionFunc{
		"stp": oneOf("rstp", "stp", "off"), "in-kernel": oneOf("auto", "off"), "busy-poll": oneOf("20us", "always", "0"),
		"log-format": oneOf("text", "json", "journal"), "uplink": completeUplink, "port": completeSpec,
		"name": cobra.NoFileCompletions, "host": cobra.NoFileCompletions, "mac": cobra.NoFileCompletions, "mtu": cobra.NoFileCompletions,
		"priority": cobra.NoFileCompletions, "ageing": cobra.NoFileCompletions, "max-entries": cobra.NoFileCompletions,
		"workers": cobra.NoFileCompletions, "metrics": cobra.NoFileCompletions,
	})
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, r := range runFlags {
			if f.Changed(r.word) {
				o.Words = append(o.Words, config.KeyValue{Key: r.word, Value: *values[r.word]})
			}
		}
		if noHost && f.Changed("host") {
			return usagef("--host and --no-host: give one of them")
		}
		if noHost {
			o.Words = append(o.Words, config.KeyValue{Key: "host", Value: config.HostOff})
		}
		if f.Changed("vlan-filtering") {
			o.Words = append(o.Words, config.KeyValue{Key: "vlan-filtering", Value: fmt.Sprint(filtering)})
		}
		if check {
			return a.check(&o)
		}
		log, err := logger(logFormat, a.stderr, os.Getenv("JOURNAL_STREAM"))
		if err != nil {
			return err
		}
		o.RunDir, o.Log = a.runDir, log
		return serve(cmd.Context(), o)
	}
	return c
}

// stopLimit is how long stopping may take. What has not let go by then does not
// keep the process.
const stopLimit = 1800 * time.Millisecond

// serve is the daemon's life: it turns signals into calls.
func serve(ctx context.Context, o daemon.Options) error {
	// A log that nobody reads any more must not end a switch.
	signal.Ignore(unix.SIGPIPE)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	d, err := daemon.New(o)
	var wrong *daemon.OptionError
	if errors.As(err, &wrong) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	var late <-chan time.Time
	for {
		select {
		case err := <-done:
			return err
		case <-late:
			return errors.New("some ports would not close; leaving them to the kernel")
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				go d.ReloadOnSignal() // a stop does not wait for it
			case late != nil: // the second one: at once
				return fmt.Errorf("stopped by a second %v", sig)
			default:
				d.Log().Info("stopping", "signal", sig.String())
				late = time.After(stopLimit)
				cancel()
			}
		}
	}
}
