package daemon

import (
	"bufio"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"

	vswitch "github.com/kvswitch/kvswitch/switch"
)

func TestHeapIsHalfOfTheControlGroupsLimitUnlessToldOtherwise(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	// t.Setenv("GOMEMLIMIT", "") would be a limit; it must not be there.
	if value, there := os.LookupEnv("GOMEMLIMIT"); there {
		os.Unsetenv("GOMEMLIMIT")
		defer os.Setenv("GOMEMLIMIT", value)
	}
	none := func() (uint64, error) { return 0, memlimit.ErrNoLimit }
	broken := func() (uint64, error) { return 0, os.ErrNotExist }
	for _, c := range []struct {
		name  string
		limit memlimit.Provider
		want  int64
	}{
		{"a limit", memlimit.Limit(256 << 20), 128 << 20},
		{"cannot be found out", broken, 128 << 20}, // what there was
		{"none", none, math.MaxInt64},
	} {
		if limitHeap(c.limit); debug.SetMemoryLimit(-1) != c.want {
			t.Errorf("%s: %d, want %d", c.name, debug.SetMemoryLimit(-1), c.want)
		}
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	if limitHeap(memlimit.Limit(256 << 20)); debug.SetMemoryLimit(-1) != math.MaxInt64 {
		t.Errorf("with GOMEMLIMIT: %d, want what the runtime made of it", debug.SetMemoryLimit(-1))
	}
}

// The metrics' address is open to a network: whoever connects there without end
// takes no descriptor from ports.
func TestMetricsTakeSoManyConnections(t *testing.T) {
	sw, err := vswitch.New(vswitch.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer sw.Close()
	m, err := listenMetrics("127.0.0.1:0", sw, "test")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- m.serve() }()
	defer func() {
		m.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	ask := func() string {
		conn, err := net.Dial("tcp", m.ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err.Error()
		}
		body, _ := io.ReadAll(resp.Body)
		return resp.Status + " " + string(body)
	}
	for i := range maxScrapers {
		if got := ask(); !strings.HasPrefix(got, "200") {
			t.Fatalf("connection %d: %s", i, got)
		}
	}
	if got := ask(); !strings.HasPrefix(got, "503") || !strings.Contains(got, "too many connections") {
		t.Errorf("one too many: %s", got)
	}
}
