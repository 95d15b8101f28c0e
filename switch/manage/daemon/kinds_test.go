package daemon

import (
	"strings"
	"testing"

	"github.com/kvswitch/kvswitch/switch/manage/config"
	vhostuser "github.com/kvswitch/kvswitch/vhost/user"
)

func TestVHostUserWords(t *testing.T) {
	kinds := Kinds()
	spec, err := kinds.ParseSpec("vhost-user:vm1,path=/run/vm1.sock,mode=client,queues=2,mtu=9000,perm=0600,owner=7:8,reconnect=2s,vlan=10")
	if err != nil {
		t.Fatal(err)
	}
	got, err := vhostUserOptions(spec)
	want := vhostuser.Options{Path: "/run/vm1.sock", Mode: vhostuser.Client, QueuePairs: 2, MTU: 9000, Perm: 0o600, UID: 7, GID: 8, Reconnect: 2e9}
	if err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for _, tc := range []struct{ words, want string }{
		{"mode=client", "path=SOCKET is missing"},
		{"path=/x,mode=both", "mode=both: want server or client"},
		{"path=/x,queues=0", "queues=0: want a number from 1 to 128"},
		{"path=/x,mtu=10", "mtu=10: want a number"},
		{"path=/x,perm=999", "perm=999: want octal permissions"},
		{"path=/x,owner=nobody-has-this-name", "owner=nobody-has-this-name: no such user"},
		{"path=/x,owner=:nobody-has-this-name", "no such group"},
		{"path=/x,reconnect=0s", "reconnect=0s: want a duration"},
	} {
		spec, err := kinds.ParseSpec("vhost-user:vm1," + tc.words)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vhostUserOptions(spec); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.words, err, tc.want)
		}
	}
}

func TestUplinksHaveAQueueForEachWorker(t *testing.T) {
	o, err := newOpener(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	options := Options{Words: []config.KeyValue{{Key: "workers", Value: "3"}}, Uplinks: []string{"eth0", "eth1,queues=1", "stream:far,path=/x"}, Ports: []string{"netdev:tap0"}}
	c, err := options.load(o.kinds())
	if err != nil {
		t.Fatal(err)
	}
	o.completeAll(c, nil)
	var got []string
	for _, p := range c.Ports {
		got = append(got, p.Spec.String())
	}
	if want := "netdev:eth0,queues=3 netdev:eth1,queues=1 stream:far,path=/x netdev:tap0"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
