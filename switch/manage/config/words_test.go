package config_test

import (
	"errors"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/manage/config"
)

func words(kv ...string) (list []config.KeyValue) {
	for i := 0; i < len(kv); i += 2 {
		list = append(list, config.KeyValue{Key: kv[i], Value: kv[i+1]})
	}
	return list
}

func TestVIDSetText(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"10", "10"}, {"10-20+30", "10-20+30"}, {"30,10-12,11-13", "10-13+30"}, {"1-4094", "1-4094"}, {"5+4+3", "3-5"},
	} {
		s, err := config.ParseVIDs(c.in)
		if err != nil || s.String() != c.want {
			t.Errorf("ParseVIDs(%q) = %q, %v; want %q", c.in, s.String(), err, c.want)
		}
	}
	for _, in := range []string{"", "0", "4095", "5-4", "a", "1-", "-1", "1--2", "99999999"} {
		if s, err := config.ParseVIDs(in); err == nil {
			t.Errorf("ParseVIDs(%q) = %q, want an error", in, s.String())
		}
	}
}

func TestPortWordsRoundTrip(t *testing.T) {
	for _, ws := range [][]config.KeyValue{
		nil, words("vlan", "10"), words("tunnel", "7"), words("trunk", "10-20+30"), words("native", "1", "trunk", "10-20"),
		words("native-tagged", "4", "trunk", "4-9"), words("untagged", "5-6", "native", "2", "trunk", "2-9"), words("native", "9"), words("max-learned", "0"),
		words("learning", "off", "isolated", "on", "max-learned", "5", "edge", "auto", "bpdu-guard", "off", "cost", "100", "prio", "16", "recover", "5m0s", "hairpin", "on"),
	} {
		a := vswitch.NewPortConfig("x")
		if err := config.SetPort(&a, ws...); err != nil {
			t.Errorf("SetPort(%v): %v", ws, err)
		}
		b := vswitch.NewPortConfig("x")
		if err := config.SetPort(&b, config.PortWords(&a)...); err != nil || a != b {
			t.Errorf("%v: PortWords %v gives %+v, %v; want %+v", ws, config.PortWords(&a), b, err, a)
		}
	}
	for _, ws := range [][]config.KeyValue{
		words("vlan", "0"), words("vlan", "x"), words("trunk", "9-1"), words("nope", "1"), words("edge", "maybe"), words("prio", "17"), words("cost", "-1"), words("recover", "soon"), words("recover", "500ms"), words("recover", "5000000000s"),
		words("vlan", "10", "native", "20"), words("tunnel", "10", "native-tagged", "20"), words("vlan", "10", "untagged", "20"),
	} {
		c := vswitch.NewPortConfig("x")
		before := c
		if err := config.SetPort(&c, append(words("isolated", "on"), ws...)...); err == nil || c != before {
			t.Errorf("SetPort(%v) = %v, changed %v; want an error and no change", ws, err, c != before)
		}
	}
}

// What a port was told is told again, also where it is what the port would have
// chosen by itself; what is not told isn't.
func TestChoicesAreKeptAsGiven(t *testing.T) {
	cfg := vswitch.NewPortConfig("x")
	if err := config.SetPort(&cfg, words("edge", "on", "p2p", "auto", "bpdu-guard", "off")...); err != nil {
		t.Fatal(err)
	}
	if cfg.STP.Edge != vswitch.On || cfg.STP.P2P != vswitch.Auto || cfg.STP.BPDUGuard != vswitch.Off {
		t.Errorf("got %+v", cfg.STP)
	}
	st := vswitch.PortStatus{Config: cfg}
	config.FillSettings(&st)
	if len(st.Settings) != 3 || st.Settings["edge"] != "on" || st.Settings["p2p"] != "auto" || st.Settings["bpdu-guard"] != "off" {
		t.Errorf("settings %v", st.Settings)
	}
	err := config.SetPort(&cfg, words("bpdu-guard", "auto")...)
	if want := `set bpdu-guard=auto: "auto" is not one of on, off`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestHintsSayWhatToType(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{vswitch.ErrHostPort, "it is the host interface, which goes with the switch; start with --no-host to have none"},
		{&vswitch.NotMemberError{Port: "a", VLAN: 5}, "port a is not in VLAN 5; `vlan add` it first"},
		{&vswitch.NoEntryError{VLAN: 1, Assumed: true}, "not in the table in VLAN 1; name another with --vlan"},
		{&vswitch.NoEntryError{VLAN: 1}, "not in the table in VLAN 1"},
		{vswitch.ErrNoPort, "no such port"},
	} {
		got := config.Hint(tc.err)
		if got.Error() != tc.want || !errors.Is(got, tc.err) {
			t.Errorf("Hint(%v) = %v, want %s", tc.err, got, tc.want)
		}
	}
	if config.Hint(nil) != nil {
		t.Error("a hint for no error")
	}
}
