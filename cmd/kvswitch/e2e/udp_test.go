package e2e

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

// echoUDP sends datagrams of every kind of length to a host and back.
func echoUDP(t *testing.T, from, to *netns.Host, ip string) {
	t.Helper()
	var server net.PacketConn
	err := to.Do(func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(ip, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, peer, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := server.WriteTo(buf[:n], peer); err != nil {
				return
			}
		}
	}()
	var client net.Conn
	err = from.Do(func() (err error) {
		client, err = net.Dial("udp", server.LocalAddr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	buf := make([]byte, 1<<16)
	for _, size := range []int{0, 1, 2, 3, 17, 18, 19, 100, 1471, 1472, 1473, 9000, 65507} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		for try := 1; ; try++ { // a datagram may be lost, but not changed
			if _, err := client.Write(sent); err != nil {
				t.Fatal(err)
			}
			if err := client.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := client.Read(buf)
			if err == nil && bytes.Equal(buf[:n], sent) {
				break
			}
			if try == 3 {
				t.Errorf("datagram of %d bytes to %s: %d came back, %v", size, ip, n, err)
				break
			}
		}
	}
}
