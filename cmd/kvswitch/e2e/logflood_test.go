package e2e

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
	"github.com/kvswitch/kvswitch/switch/host/loglimit"
)

// TestPeerThatComesAndGoesDoesNotFillTheLog has a peer connect and go, again and
// again, as a guest would that resets its card: each time the port's link is up
// and down again.
func TestPeerThatComesAndGoesDoesNotFillTheLog(t *testing.T) {
	k := run(t, netns.New(t).Host("host"), "--no-host", "--log-format", "json")
	path := filepath.Join(k.dir, "peer")
	k.do("port", "add", "stream:peer,path="+path)
	began := time.Now()
	const times = 3 * loglimit.Burst
	for range times {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		k.awaitPort("peer", "is up", func(p portDoc) bool { return p.Link == "up" })
		c.Close()
		k.awaitPort("peer", "is down", func(p portDoc) bool { return p.Link == "down" })
	}
	k.stop()
	lines, told := 0, 0
	for line := range strings.Lines(k.proc.Log()) {
		var entry struct {
			Msg     string `json:"msg"`
			Port    string `json:"port"`
			LeftOut int    `json:"left_out"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "port is up" && entry.Port == "peer" {
			lines, told = lines+1, told+1+entry.LeftOut
		}
	}
	if most := loglimit.Burst + 2 + int(time.Since(began)/loglimit.Window); lines > most {
		t.Errorf("%d lines say that the port is up, want at most %d", lines, most)
	}
	if told != times {
		t.Errorf("the log accounts for %d times that the port was up, want %d", told, times)
	}
}
