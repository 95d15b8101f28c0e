package vm

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/bench/testbed/vm/image"
)

const (
	tcg = "tcg,thread=multi"
	kvm = "kvm"
	// kvmPatience is how long a guest may take under KVM. It needs half a
	// second where KVM works; there are machines on which /dev/kvm opens, a
	// processor starts, and nothing more happens.
	kvmPatience = 5 * time.Second
)

// accel chooses QEMU's accelerator: KVM if a guest boots under it, which is
// tried once per boot of this machine and remembered beside the guest's files.
func accel(tb netns.TB) string {
	tb.Helper()
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return tcg
	}
	f.Close()
	img, err := guestImage()
	if err != nil {
		return tcg
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return tcg
	}
	memory := filepath.Join(filepath.Dir(filepath.Dir(img.Initrd)), "accel-"+strings.TrimSpace(string(boot)))
	if known, err := os.ReadFile(memory); err == nil && len(known) > 0 {
		return string(known)
	}
	choice := tcg
	if err := bootsUnder(tb, kvm, img); err == nil {
		choice = kvm
	} else {
		tb.Logf("guests run without KVM: %v", err)
	}
	if err := os.WriteFile(memory, []byte(choice), 0o644); err != nil {
		tb.Logf("remember accelerator: %v", err)
	}
	return choice
}

// bootsUnder boots a guest and reports why it did not come up.
func bootsUnder(tb netns.TB, accel string, img image.Image) error {
	tb.Helper()
	g, err := launch(tb, Options{Name: "probe", Accel: accel}, img)
	if err != nil {
		return err
	}
	defer g.proc.Kill()
	ctx, cancel := context.WithTimeout(tb.Context(), kvmPatience)
	defer cancel()
	return g.awaitBoot(ctx)
}
