package qemu

import (
	"os"
	"os/exec"
	"reflect"
	"slices"
	"syscall"
	"testing"
)

// hold has a process of its own hold files, under QEMU's arguments.
func hold(t *testing.T, files []*os.File, args ...string) (pid int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"qemu-system-x86_64"}, args...)
	cmd.Env = append(os.Environ(), asQEMU+"=1")
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	return cmd.Process.Pid
}

func TestHoldersOfTapsAreFound(t *testing.T) {
	needTaps(t)
	checkNothingLeft(t)
	const uuid = "6a1d5c1e-93a5-4d4e-8f3a-2f6a2f1c7f10"
	var taps []*tapDevice
	for _, queues := range []int{1, 2, 1} {
		tap, err := makeTap(queues, true)
		if err != nil {
			t.Fatal(err)
		}
		defer tap.close()
		taps = append(taps, tap)
	}
	web := hold(t, slices.Concat(taps[0].queues, taps[1].queues), "-name", "guest=web,debug-threads=on", "-uuid", uuid)
	nameless := hold(t, taps[2].queues, "-S")
	for _, tap := range taps {
		tap.close()
	}
	comm, err := os.ReadFile("/proc/self/comm") // of the same program
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Holder{
		taps[0].name: {PID: web, Name: "web", UUID: uuid, Queues: 1, VHost: VHostOff},
		taps[1].name: {PID: web, Name: "web", UUID: uuid, Queues: 2, VHost: VHostOff},
		taps[2].name: {PID: nameless, Name: string(comm[:len(comm)-1]), Queues: 1, VHost: VHostOff},
	}
	await(t, "the processes to be what they will be", func() bool { return reflect.DeepEqual(Holders(), want) })

	plugged := GuestNIC{Guest: "vm", QMP: "/vm", NIC: NIC{Port: taps[0].name}}
	list := AddHeld([]GuestNIC{plugged}, []string{taps[0].name, taps[1].name, "eth0"}, func(string) []string { return []string{"52:54:00:00:00:01"} })
	held := GuestNIC{Guest: "web", UUID: uuid, PID: web, NIC: NIC{Port: taps[1].name, Queues: 2}, GuestMACs: []string{"52:54:00:00:00:01"}}
	if !reflect.DeepEqual(list, []GuestNIC{plugged, held}) {
		t.Errorf("%+v", list)
	}
}

func TestGuestNameIsReadAsQEMUDoes(t *testing.T) {
	for option, want := range map[string]string{
		"web":                           "web",
		"web,process=qemu-web":          "web",
		"guest=web,debug-threads=on":    "web",
		"debug-threads=on,guest=web":    "web",
		"guest=a,,b=c,debug-threads=on": "a,b=c",
		"process=x":                     "",
		"":                              "",
	} {
		if got := guestName(option); got != want {
			t.Errorf("-name %s: %q, want %q", option, got, want)
		}
	}
}
