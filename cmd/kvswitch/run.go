package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kvswitch/kvswitch/switch/manage/config"

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
	{"metrics", "serve Prometheus metrics on `ADDR:PORT`"},
}

// runOptions is the command line of `run`.
type runOptions struct {
	file      string
	words     []config.KeyValue // flags that were given
	uplinks   []string
	ports     []string
	logFormat string
}

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	var filtering, noHost bool
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
	f.StringVar(&o.file, "config", "", "read `FILE`, YAML with the same words; flags count more")
	f.StringArrayVar(&o.uplinks, "uplink", nil, "attach network card `IF`[,key=value]..., or another way to other switches by its SPEC (may be repeated)")
	f.StringArrayVar(&o.ports, "port", nil, "attach a port by its `SPEC` (may be repeated)")
	f.BoolVar(&noHost, "no-host", false, "no host interface")
	f.BoolVar(&filtering, "vlan-filtering", false, "keep VLANs apart (802.1Q)")
	f.StringVar(&o.logFormat, "log-format", "", "log as `FORMAT` text or json (default text on a terminal, else json)")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, r := range runFlags {
			if f.Changed(r.word) {
				o.words = append(o.words, config.KeyValue{Key: r.word, Value: *values[r.word]})
			}
		}
		if noHost && f.Changed("host") {
			return usagef("--host and --no-host: give one of them")
		}
		if noHost {
			o.words = append(o.words, config.KeyValue{Key: "host", Value: config.HostOff})
		}
		if f.Changed("vlan-filtering") {
			o.words = append(o.words, config.KeyValue{Key: "vlan-filtering", Value: fmt.Sprint(filtering)})
		}
		log, err := logger(o.logFormat, a.stderr)
		if err != nil {
			return err
		}
		return a.run(cmd.Context(), o, log)
	}
	return c
}

// load reads the file and puts the flags over it.
func (o *runOptions) load(kinds config.Kinds) (*config.Config, error) {
	cfg := config.Default()
	if o.file != "" {
		text, err := os.ReadFile(o.file)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if err := cfg.Parse(kinds, o.file, text); err != nil {
			return nil, err
		}
	}
	for _, w := range o.words {
		if err := cfg.Set(w.Key, w.Value); err != nil {
			return nil, usagef("--%w", err)
		}
	}
	for i, text := range slices.Concat(o.uplinks, o.ports) {
		uplink, parse := i < len(o.uplinks), kinds.ParseSpec
		if uplink {
			parse = kinds.ParseUplink
		}
		spec, err := parse(text)
		if err == nil {
			err = cfg.AddPort(config.Port{Spec: spec, Uplink: uplink})
		}
		if err != nil {
			return nil, usageError{err}
		}
	}
	if err := cfg.Check(); err != nil && o.file == "" {
		return nil, usageError{err}
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", o.file, err)
	}
	return cfg, nil
}

// stopLimit is how long stopping may take. What has not let go by then does not
// keep the process.
const stopLimit = 1800 * time.Millisecond

// run is the daemon's life.
func (a *app) run(ctx context.Context, o runOptions, log *slog.Logger) error {
	// A log that nobody reads any more must not end a switch.
	signal.Ignore(unix.SIGPIPE)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	d, err := newDaemon(a.runDir, o, log)
	if err != nil {
		return err
	}
	provision(d.started.Switch.Workers)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
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
				go d.reloadOnSignal() // a stop does not wait for it
			case late != nil: // the second one: at once
				return fmt.Errorf("stopped by a second %v", sig)
			default:
				log.Info("stopping", "signal", sig.String())
				late = time.After(stopLimit)
				cancel()
			}
		}
	}
}

// provision fits the Go runtime to the work. Each worker holds a processor of
// the runtime while it polls, and one more serves the control side. The heap is
// small and steady — frames are never allocated — so collecting it at four times
// its size costs some megabytes and saves the workers most interruptions; GOGC
// in the environment decides otherwise.
func provision(workers int) {
	if n := workers + 1; runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// logger writes lines of the given format, by default what suits w.
func logger(format string, w io.Writer) (*slog.Logger, error) {
	if format == "" {
		format = "json"
		if f, ok := w.(*os.File); ok && isTerminal(f) {
			format = "text"
		}
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, usagef("--log-format %q: want text or json", strings.TrimSpace(format))
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
