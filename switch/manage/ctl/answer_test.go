package ctl_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/port/mem"
)

// fullTable is a switch that knows n stations on a.
func fullTable(t *testing.T, n int) *host {
	t.Helper()
	h := newHost(t, vswitch.Config{STP: vswitch.STPConfig{Mode: vswitch.ModeOff}, MaxEntries: n}, "netdev:a,max-learned=0", "netdev:b")
	for i := range n {
		if err := h.sw.AddFDB(mem.MAC(i), 0, "a", false); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// heap is what the process holds, in bytes.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Sixty readers of a full table that don't read cost what a few do, are dropped,
// and keep nobody from reading it.
func TestReadersOfAFullTableCostLittleAndThoseWhoDoNotReadAreDropped(t *testing.T) {
	const stations, readers = 1 << 16, 60
	h := fullTable(t, stations)
	before := heap()
	var conns []net.Conn
	for range readers {
		conn := h.dial()
		io.WriteString(conn, "GET /v1/fdb HTTP/1.1\r\nHost: a\r\n\r\n")
		conns = append(conns, conn)
	}
	// Whole, the table is 6 MB as a document and more before that.
	most := uint64(0)
	done := make(chan string, readers)
	for _, conn := range conns {
		go func() {
			// Some bytes, to be sure that it was begun or refused; then nothing until
			// the server has given up, which is when all that is left can be read.
			b := make([]byte, 16)
			n, _ := io.ReadFull(conn, b)
			done <- string(b[:n])
		}()
	}
	begun, refused := 0, 0
	for range readers {
		switch first := <-done; {
		case strings.HasPrefix(first, "HTTP/1.1 200"):
			begun++
		case strings.HasPrefix(first, "HTTP/1.1 503"):
			refused++
		default:
			t.Errorf("an answer begins with %q", first)
		}
		if now := heap(); now > before {
			most = max(most, now-before)
		}
	}
	if most > 64<<20 {
		t.Errorf("%d readers made the heap grow by %d MB", readers, most>>20)
	}
	if begun == 0 || refused == 0 {
		t.Errorf("%d were answered and %d refused", begun, refused)
	}
	// By now some have been dropped, to give others their turn.
	complete := 0
	for _, conn := range conns {
		whole, _ := io.ReadAll(conn)
		if strings.HasSuffix(string(whole), "]\n\r\n0\r\n\r\n") {
			complete++
		}
		conn.Close()
	}
	if begun-complete < 4 { // as many as get the table at once
		t.Errorf("%d were answered, and %d of them had it whole when they read at last", begun, complete)
	}
	var list []vswitch.FDBEntry
	if err := json.Unmarshal(h.get("/v1/fdb"), &list); err != nil || len(list) != stations {
		t.Errorf("a reader who reads gets %d of %d stations, %v", len(list), stations, err)
	}
}

// get is the body of a good answer.
func (h *host) get(path string) []byte {
	h.t.Helper()
	conn := h.dial()
	defer conn.Close()
	io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
		h.t.Fatalf("GET %s: %s, %v", path, resp.Status, err)
	}
	return body
}

// A streamed table is the document that it was when it was made whole.
func TestStreamedTableIsTheSameDocument(t *testing.T) {
	h := fullTable(t, 3)
	list, err := h.sw.FDB("a", 1)
	if err != nil || len(list) != 3 {
		t.Fatal(len(list), err)
	}
	whole, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/v1/fdb":               string(whole) + "\n",
		"/v1/fdb?port=a&vlan=1": string(whole) + "\n",
		"/v1/fdb?port=b":        "[]\n",
		"/v1/fdb?vlan=7":        "[]\n",
	} {
		if got := string(h.get(path)); got != want {
			t.Errorf("GET %s: %q, want %q", path, got, want)
		}
	}
	h.want("GET", "/v1/fdb?port=none", "", 404, "no such port")
	h.want("GET", "/v1/fdb?vlan=0", "", 400, "VLAN")
	h.want("GET", "/v1/fdb?vlan=x", "", 400, "VLAN")
}
