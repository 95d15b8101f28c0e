package daemon

import (
	"testing"

	"github.com/kvswitch/kvswitch/switch/manage/ctl"
)

func TestOwnMACIsKeptAndTellsSwitchesApart(t *testing.T) {
	a := ownMAC("kvs0", ctl.DefaultRunDir)
	if a != ownMAC("kvs0", ctl.DefaultRunDir) {
		t.Error("two addresses for one switch")
	}
	if !a.IsUnicast() || a[0]&2 == 0 {
		t.Errorf("%v is not a locally administered station's address", a)
	}
	if a == ownMAC("kvs1", ctl.DefaultRunDir) || a == ownMAC("kvs0", "/tmp/x") {
		t.Error("one address for two switches")
	}
}
