package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	vswitch "github.com/kvswitch/kvswitch/switch"

	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// Options are what a daemon is started from. What Words, Uplinks and Ports say
// counts more than the file, at every reload, too.
type Options struct {
	RunDir  string            // of the control socket
	File    string            // YAML; "" = none, and nothing to reload
	Words   []config.KeyValue // of the file's words
	Uplinks []string          // SPECs, or names of network interfaces
	Ports   []string          // SPECs
	// KeepHost leaves the host interface, with its addresses and routes, when the
	// switch stops; the next run of the switch takes it over, and Restore removes it.
	KeepHost bool
	Version  string       // of the program, for metrics
	Log      *slog.Logger // nil = slog.Default()
}

// OptionError is that the options are wrong, not the file or the host.
type OptionError struct{ Err error }

func (e *OptionError) Error() string { return e.Err.Error() }
func (e *OptionError) Unwrap() error { return e.Err }

// load reads the file and puts the other options over it.
func (o *Options) load(kinds config.Kinds) (*config.Config, error) {
	cfg := config.Default()
	if o.File != "" {
		text, err := os.ReadFile(o.File)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if err := cfg.Parse(kinds, o.File, text); err != nil {
			return nil, err
		}
	}
	if err := o.over(cfg, kinds); err != nil {
		return nil, err
	}
	return cfg, nil
}

// over puts the options beside the file over what it said.
func (o *Options) over(cfg *config.Config, kinds config.Kinds) error {
	for _, w := range o.Words {
		if err := cfg.Set(w.Key, w.Value); err != nil {
			return &OptionError{fmt.Errorf("--%w", err)}
		}
	}
	for i, text := range slices.Concat(o.Uplinks, o.Ports) {
		uplink, parse := i < len(o.Uplinks), kinds.ParseSpec
		if uplink {
			parse = kinds.ParseUplink
		}
		spec, err := parse(text)
		if err == nil {
			err = cfg.AddPort(config.Port{Spec: spec, Uplink: uplink})
		}
		if err != nil {
			return &OptionError{err}
		}
	}
	if err := cfg.Check(); err != nil && o.File == "" {
		return &OptionError{err}
	} else if err != nil {
		return fmt.Errorf("%s: %w", o.File, err)
	}
	return nil
}

// Check says what is wrong with the options and their file, all of it, and starts
// nothing. The error is an OptionError, or that the file can't be read.
func (o *Options) Check() (r config.Report, err error) {
	kinds := Kinds()
	cfg := config.Default()
	if o.File != "" {
		text, err := os.ReadFile(o.File)
		if err != nil {
			return r, fmt.Errorf("read configuration: %w", err)
		}
		r = cfg.CheckFile(kinds, o.File, text)
	}
	if len(r.Mistakes) > 0 {
		return r, nil // what the other options say of it is not known
	}
	said := len(cfg.Ports)
	if err := o.over(cfg, kinds); err != nil {
		return r, err
	}
	if cfg.Switch.VLANFiltering {
		r.Warnings = slices.DeleteFunc(r.Warnings, func(err error) bool { // a flag has turned it on
			return strings.Contains(err.Error(), vswitch.WarnUnfiltered)
		})
	}
	for _, p := range cfg.Ports[said:] {
		k, err := kinds.Find(p.Kind)
		if err == nil && k.Check != nil {
			err = k.Check(p.Spec)
		}
		if err != nil {
			return r, &OptionError{err}
		}
	}
	return r, nil
}
