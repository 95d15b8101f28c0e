package daemon

import (
	"fmt"
	"time"

	vswitch "github.com/kvswitch/kvswitch/switch"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// What systemd is told (sd_notify(3)). Without it nothing is sent.

// notifyReady says that the switch answers, and feeds the watchdog if there is
// one, until stop is called. The watchdog hears of life only while the switch
// itself answers: a control side that hangs is what it is for.
func notifyReady(sw *vswitch.Switch) (stop func()) {
	sd.SdNotify(false, sd.SdNotifyReady)
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return notifyStopping
	}
	done := make(chan struct{})
	go func() {
		beat := time.NewTicker(interval / 3)
		defer beat.Stop()
		for {
			select {
			case <-done:
				return
			case <-beat.C:
				sw.Config() // takes the lock that every change takes
				sd.SdNotify(false, sd.SdNotifyWatchdog)
			}
		}
	}()
	return func() {
		close(done)
		notifyStopping()
	}
}

func notifyStopping() { sd.SdNotify(false, sd.SdNotifyStopping) }

// notifyReloading begins a reload; systemd wants to know when (Type=notify-reload).
func notifyReloading() {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
		sd.SdNotify(false, fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, now.Nano()/1000))
	}
}

func notifyReloaded() { sd.SdNotify(false, sd.SdNotifyReady) }
