package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	vhostuser "github.com/kvswitch/kvswitch/vhost/user"
)

// vhostUserKeys are the words of a vhost-user port.
var vhostUserKeys = []string{"path", "mode", "queues", "mtu", "perm", "owner", "reconnect"}

func openVHostUser(s config.Spec) (frame.Port, error) {
	opts, err := vhostUserOptions(s)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", s.Name, err)
	}
	p, err := vhostuser.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", s.Name, err)
	}
	return p, nil
}

func checkVHostUser(s config.Spec) error {
	if _, err := vhostUserOptions(s); err != nil {
		return fmt.Errorf("open port %s: %w", s.Name, err)
	}
	return nil
}

func vhostUserOptions(s config.Spec) (o vhostuser.Options, err error) {
	for _, w := range s.Device {
		v := w.Value
		switch w.Key {
		case "path":
			o.Path = v
		case "mode":
			switch v {
			case vhostuser.Server.String():
				o.Mode = vhostuser.Server
			case vhostuser.Client.String():
				o.Mode = vhostuser.Client
			default:
				err = errors.New("want server or client")
			}
		case "queues":
			o.QueuePairs, err = config.Number(v, 1, vhostuser.MaxQueuePairs)
		case "mtu":
			o.MTU, err = config.Number(v, config.MinMTU, frame.MaxMTU)
		case "perm":
			var perm uint64
			if perm, err = strconv.ParseUint(v, 8, 32); err != nil || perm == 0 || perm > 0o777 {
				err = errors.New("want octal permissions such as 0660")
			}
			o.Perm = fs.FileMode(perm)
		case "owner":
			var uid, gid *uint32
			if uid, gid, err = owner(v); uid != nil {
				o.UID = int(*uid)
			}
			if gid != nil {
				o.GID = int(*gid)
			}
		case "reconnect":
			if o.Reconnect, err = time.ParseDuration(v); err != nil || o.Reconnect <= 0 {
				err = errors.New("want a duration such as 1s")
			}
		}
		if err != nil {
			return o, fmt.Errorf("%s=%s: %w", w.Key, v, err)
		}
	}
	if o.Path == "" {
		return o, errors.New("path=SOCKET is missing")
	}
	return o, nil
}

// owner reads USER, USER:GROUP or :GROUP, by name or number; what is not given
// is nil.
func owner(text string) (uid, gid *uint32, err error) {
	name, group, _ := strings.Cut(text, ":")
	if name != "" {
		if u, err := user.Lookup(name); err == nil {
			name = u.Uid
		}
		if uid = id(name); uid == nil {
			return nil, nil, errors.New("no such user")
		}
	}
	if group != "" {
		if g, err := user.LookupGroup(group); err == nil {
			group = g.Gid
		}
		if gid = id(group); gid == nil {
			return nil, nil, errors.New("no such group")
		}
	}
	return uid, gid, nil
}

func id(text string) *uint32 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil
	}
	v := uint32(n)
	return &v
}
