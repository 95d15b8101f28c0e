package bridgehelper

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Args is what QEMU's `-netdev bridge` says to its helper.
type Args struct {
	UseVNet bool   // the tap's frames carry a virtio-net header
	Bridge  string // br=
	FD      int    // of the unix socket that the tap's descriptor goes to
}

// ParseArgs reads the arguments after the program's name, in the form
// that qemu-bridge-helper takes: [--use-vnet] --br=NAME --fd=N. Of words given
// twice the last counts.
func ParseArgs(args []string) (Args, error) {
	a := Args{FD: -1}
	for _, word := range args {
		value, isBridge := strings.CutPrefix(word, "--br=")
		number, isFD := strings.CutPrefix(word, "--fd=")
		switch {
		case word == "--use-vnet":
			a.UseVNet = true
		case isBridge:
			a.Bridge = value
		case isFD:
			n, err := strconv.ParseUint(number, 10, 31)
			if err != nil {
				return Args{}, fmt.Errorf("--fd=%s: want the number of a descriptor", number)
			}
			a.FD = int(n)
		default:
			return Args{}, fmt.Errorf("%q: want [--use-vnet] --br=NAME --fd=N", word)
		}
	}
	switch {
	case a.Bridge == "":
		return Args{}, errors.New("--br=NAME is missing: want the name of a switch")
	case len(a.Bridge) > maxSwitchName:
		return Args{}, fmt.Errorf("--br=%.20s…: longer than %d bytes", a.Bridge, maxSwitchName)
	case a.FD < 0:
		return Args{}, errors.New("--fd=N is missing: QEMU gives it when it runs a helper")
	}
	return a, nil
}
