package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/ctl"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"

	"github.com/spf13/cobra"
)

func (a *app) libvirtCommand() *cobra.Command {
	return group("libvirt", "Attach the guests of libvirt", a.libvirtHooksCommand(), a.libvirtHookCommand())
}

func (a *app) libvirtHooksCommand() *cobra.Command {
	var dir string
	verb := func(use, short string, f func() (path string, changed bool, err error), done, notDone string) *cobra.Command {
		c := &cobra.Command{
			Use: use, Short: short, Args: args(0, 0),
			RunE: func(*cobra.Command, []string) error {
				path, changed, err := f()
				if err != nil {
					return err
				}
				text := notDone
				if changed {
					text = done
				}
				_, err = fmt.Fprintf(a.out, "%s: %s\n", path, text)
				return err
			},
		}
		c.Flags().StringVar(&dir, "dir", qemu.HooksDir, "libvirt's directory of hooks")
		return c
	}
	install := a.talks(verb("install", "Make libvirt call kvswitch when a guest starts and ends",
		func() (string, bool, error) {
			runDir, err := filepath.Abs(a.runDir)
			if err != nil {
				return "", false, err
			}
			return qemu.InstallHook(dir, qemu.HookCommand{Program: self(), RunDir: runDir, Switch: a.name})
		},
		"installed; restart libvirt's daemon if this is its first hook", "there already"))
	install.Long = `Make libvirt call kvswitch when a guest starts and ends. libvirt hands hooks no
environment: the hook that is written here keeps --run-dir, and -s for the guests
that name no switch, as they are now (KVSWITCH_RUN_DIR and KVSWITCH_SWITCH count).`
	return group("hooks", "Make libvirt call kvswitch for its guests, or no longer", install,
		verb("uninstall", "Undo install",
			func() (string, bool, error) { return qemu.UninstallHook(dir) },
			"removed", "not there"))
}

// libvirtHookCommand is what the installed hook runs: its arguments and its
// standard input are libvirt's.
func (a *app) libvirtHookCommand() *cobra.Command {
	return a.talks(&cobra.Command{
		Use:    "hook GUEST OPERATION [SUB-OPERATION [EXTRA]]",
		Short:  "What the installed hook runs",
		Hidden: true,
		Args:   args(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h := qemu.Hook{Guest: args[0], Operation: args[1], Domain: cmd.InOrStdin(), Dir: qemu.HookDir(a.runDir)}
			h.Find = func(name string) (qemu.HookSwitch, error) {
				if name == "" {
					name = a.name
				}
				name, err := ctl.Choose(a.runDir, name)
				if err != nil {
					return nil, err
				}
				return hookSwitch{cmd.Context(), name, ctl.NewClient(a.runDir, name)}, nil
			}
			return h.Run()
		},
	})
}

// hookSwitch is a running switch as package qemu's hook sees it.
type hookSwitch struct {
	ctx    context.Context
	name   string
	client *ctl.Client
}

var _ qemu.HookSwitch = hookSwitch{}

func (s hookSwitch) Name() string { return s.name }

func (s hookSwitch) AddPort(spec config.Spec) error {
	_, err := s.client.AddPort(s.ctx, ctl.NewPort{Spec: spec.String(), Guest: true})
	return err
}

func (s hookSwitch) DelPort(name string) error {
	err := s.client.DelGuestPort(s.ctx, name)
	if errors.Is(err, vswitch.ErrNoPort) {
		return nil // it went with its tap
	}
	return err
}

func (s hookSwitch) HasPort(name string) (bool, error) {
	_, err := s.client.Port(s.ctx, name)
	if errors.Is(err, vswitch.ErrNoPort) || errors.Is(err, ctl.ErrNotRunning) {
		return false, nil
	}
	return err == nil, err
}

func (s hookSwitch) Learn(port string, mac frame.MAC) error {
	return s.client.AddFDB(s.ctx, ctl.NewEntry{MAC: mac, Port: port})
}
