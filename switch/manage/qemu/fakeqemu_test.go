package qemu

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeQEMU is a QMP server that keeps descriptors, backends and devices as QEMU
// does, and that can be told to refuse or to die at a given command.
type fakeQEMU struct {
	t    *testing.T
	path string
	l    *net.UnixListener
	done chan struct{}

	mu      sync.Mutex
	conn    *net.UnixConn
	refuse  map[string]string // description of the error, by command
	dieAt   string
	keep    bool // device_del is answered, but the guest does not let go
	files   map[string]*os.File
	netdevs map[string][]*os.File
	netdev  map[string]map[string]any // arguments of netdev_add
	devices map[string]map[string]any // arguments of device_add
	macs    map[string]string         // main-mac by device
	log     []string
}

func startFakeQEMU(t *testing.T) *fakeQEMU {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qmp")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	q := &fakeQEMU{t: t, path: path, l: l, done: make(chan struct{}),
		refuse: map[string]string{}, files: map[string]*os.File{}, netdevs: map[string][]*os.File{},
		netdev: map[string]map[string]any{}, devices: map[string]map[string]any{}, macs: map[string]string{}}
	go q.serve()
	t.Cleanup(q.kill)
	return q
}

// kill is SIGKILL: the kernel closes all that QEMU had.
func (q *fakeQEMU) kill() {
	q.l.Close()
	q.mu.Lock()
	if q.conn != nil {
		q.conn.Close()
	}
	q.mu.Unlock()
	<-q.done
}

func (q *fakeQEMU) serve() {
	defer close(q.done)
	defer q.closeAll()
	for { // one client at a time, as QEMU
		c, err := q.l.AcceptUnix()
		if err != nil {
			return
		}
		q.mu.Lock()
		q.conn = c
		q.mu.Unlock()
		alive := q.talk(c)
		c.Close()
		if !alive {
			q.l.Close()
			return
		}
	}
}

func (q *fakeQEMU) closeAll() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range q.files {
		f.Close()
	}
	for _, n := range q.netdevs {
		closeAll(n)
	}
}

// talk serves one client and reports whether QEMU still lives.
func (q *fakeQEMU) talk(c *net.UnixConn) bool {
	fmt.Fprintln(c, `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "fake"}, "capabilities": ["oob"]}}`)
	var text []byte
	var rights []int
	defer func() {
		for _, fd := range rights {
			unix.Close(fd)
		}
	}()
	buf, oob := make([]byte, 4096), make([]byte, 256)
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return true
		}
		text = append(text, buf[:n]...)
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range msgs {
			fds, _ := unix.ParseUnixRights(&m)
			rights = append(rights, fds...)
		}
		for {
			line, rest, ok := strings.Cut(string(text), "\n")
			if !ok {
				break
			}
			text = []byte(rest)
			var cmd struct {
				Execute   string         `json:"execute"`
				Arguments map[string]any `json:"arguments"`
			}
			if err := json.Unmarshal([]byte(line), &cmd); err != nil {
				q.t.Errorf("QEMU was sent %q", line)
				return true
			}
			q.mu.Lock()
			die := q.dieAt == cmd.Execute
			q.mu.Unlock()
			if die {
				return false
			}
			result, err := q.execute(cmd.Execute, cmd.Arguments, &rights)
			if err != nil {
				fmt.Fprintf(c, `{"error": {"class": "GenericError", "desc": %q}}`+"\n", err.Error())
				continue
			}
			b, _ := json.Marshal(map[string]any{"return": result})
			c.Write(append(b, '\n'))
			q.mu.Lock()
			unplug := cmd.Execute == "device_del" && !q.keep
			q.mu.Unlock()
			if unplug {
				q.unplug(cmd.Arguments["id"].(string))
			}
		}
	}
}

func (q *fakeQEMU) execute(command string, args map[string]any, rights *[]int) (any, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.log = append(q.log, command)
	id, _ := args["id"].(string)
	name, _ := args["fdname"].(string)
	if desc := q.refuse[command]; desc != "" {
		for _, fd := range *rights {
			unix.Close(fd)
		}
		*rights = nil
		return nil, fmt.Errorf("%s", desc)
	}
	switch command {
	case "qmp_capabilities":
	case "query-name":
		return map[string]string{"name": "fake"}, nil
	case "query-uuid":
		return map[string]string{"UUID": "00000000-0000-0000-0000-000000000001"}, nil
	case "qom-list":
		list := []map[string]string{{"name": "type", "type": "string"}}
		for id := range q.devices {
			list = append(list, map[string]string{"name": id, "type": "child<virtio-net-pci>"})
		}
		return list, nil
	case "getfd":
		if len(*rights) != 1 {
			return nil, fmt.Errorf("No file descriptor supplied via SCM_RIGHTS")
		}
		q.files[name] = os.NewFile(uintptr((*rights)[0]), name)
		*rights = nil
	case "closefd":
		if q.files[name] == nil {
			return nil, fmt.Errorf("File descriptor named '%s' not found", name)
		}
		q.files[name].Close()
		delete(q.files, name)
	case "netdev_add":
		if q.netdevs[id] != nil {
			return nil, fmt.Errorf("Duplicate ID '%s'", id)
		}
		for _, list := range []string{"fds", "vhostfds"} {
			names, _ := args[list].(string)
			for _, n := range strings.Split(names, ":") {
				if n != "" {
					q.netdevs[id] = append(q.netdevs[id], q.files[n])
					delete(q.files, n)
				}
			}
		}
		q.netdev[id] = args
	case "netdev_del":
		if q.netdevs[id] == nil {
			return nil, fmt.Errorf("Device '%s' not found", id)
		}
		closeAll(q.netdevs[id])
		delete(q.netdevs, id)
	case "device_add":
		if q.devices[id] != nil {
			return nil, fmt.Errorf("Duplicate device ID '%s'", id)
		}
		q.devices[id] = args
		q.macs[id] = args["mac"].(string)
	case "device_del":
		if q.devices[id] == nil {
			return nil, fmt.Errorf("Device '%s' not found", id)
		}
	case "query-rx-filter":
		n, _ := args["name"].(string)
		return []any{map[string]any{"name": n, "main-mac": q.macs[n], "unicast": "normal", "multicast": "none", "vlan": "all",
			"unicast-table": []string{}, "multicast-table": []string{}, "vlan-table": []int{}}}, nil
	default:
		return nil, fmt.Errorf("The command %s has not been found", command)
	}
	return map[string]any{}, nil
}

func (q *fakeQEMU) unplug(id string) {
	q.mu.Lock()
	delete(q.devices, id)
	q.mu.Unlock()
	q.emit("DEVICE_DELETED", fmt.Sprintf(`{"device": %q, "path": "/machine/peripheral/%s"}`, id, id))
}

// emit sends an event.
func (q *fakeQEMU) emit(event, data string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fmt.Fprintf(q.conn, `{"event": %q, "data": %s, "timestamp": {"seconds": 1, "microseconds": 2}}`+"\n", event, data)
}

func (q *fakeQEMU) count(command string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, c := range q.log {
		if c == command {
			n++
		}
	}
	return n
}

// with runs f while nothing changes.
func (q *fakeQEMU) with(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
}

// holds is the number of descriptors that QEMU has been passed and not closed.
func (q *fakeQEMU) holds() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.files)
	for _, f := range q.netdevs {
		n += len(f)
	}
	return n
}
