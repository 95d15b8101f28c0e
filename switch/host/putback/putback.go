// Package putback keeps what network devices were like before the switch changed
// them, on disk, so that it can be put back after a crash, too: by the next start,
// or by whoever cleans up.
//
// Whoever changes a setting tells Change first, and Done when it is as it was. A
// file for each device holds the settings that are still to be put back. It is
// there before the setting is changed, and gone when nothing is left to do. A
// device is known by the kernel's boot, its network namespace, its index and its
// name or address: one that was renamed is the same, one that has another's index
// is not.
//
// The package changes no device, and knows no setting: names and values are its
// users'. A Store's methods may be called from any goroutine whose thread is in
// the devices' network namespace.
package putback

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kvswitch/kvswitch/switch/host/link"
)

// Store is a directory of records. A nil Store remembers nothing.
type Store struct {
	dir string
	mu  sync.Mutex
}

// Record is what is to be put back about one device.
type Record struct {
	Boot     string            `json:"boot"`     // the kernel's boot id
	Netns    uint64            `json:"netns"`    // inode number of the network namespace
	Index    int               `json:"index"`    // ifindex
	Name     string            `json:"name"`     // when it was changed
	MAC      string            `json:"mac"`      // likewise
	Settings map[string]string `json:"settings"` // what they were before
}

// New makes a store of the directory dir, which is made when there is something to
// keep.
func New(dir string) *Store { return &Store{dir: dir} }

// Change says that a setting of l, which is now, is about to be made ours, and
// returns what is to be put back later: now, or, where a process that crashed has
// made it ours already, what it was before that. "" is nothing: the setting was
// ours by somebody's choice. With an error the value is right, but kept nowhere.
func (s *Store) Change(l *link.Link, setting, now, ours string) (before string, err error) {
	if s == nil {
		if now == ours {
			now = ""
		}
		return now, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.of(l)
	if now == ours {
		if err != nil {
			return "", err
		}
		return r.Settings[setting], nil
	}
	if err != nil {
		return now, err
	}
	r.Settings[setting] = now
	return now, s.write(r)
}

// Done says that a setting of l is as it was, or that the device is gone, which
// has "" for all its settings.
func (s *Store) Done(l *link.Link, setting string) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.of(l)
	if err != nil {
		return err
	}
	if setting == "" {
		clear(r.Settings)
	}
	delete(r.Settings, setting)
	return s.write(r)
}

// Left lists what is to be put back in this network namespace, in no order. What
// is of no use any more, as the kernel was booted since, is removed on the way.
func (s *Store) Left() ([]Record, error) {
	if s == nil {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	boot, netns, err := here()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "*"+suffix))
	if err != nil {
		return nil, err
	}
	var list []Record
	for _, file := range files {
		r, err := read(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil || r.Boot != boot:
			_ = os.Remove(file)
		case r.Netns == netns:
			list = append(list, *r)
		}
	}
	return list, nil
}

// Forget removes a record, whose device is gone or as it was.
func (s *Store) Forget(r *Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(r.Settings)
	return s.write(r)
}

// Is reports whether l is the device that the record is about: it has its index,
// and its name or its address.
func (r *Record) Is(l *link.Link) bool {
	return r.Index == l.Index && (l.Called(r.Name) || r.MAC == l.MAC.String())
}

const suffix = ".device"

func (s *Store) path(netns uint64, index int) string {
	return filepath.Join(s.dir, fmt.Sprintf("%d-%d%s", netns, index, suffix))
}

// of is the record of l, which is new where there is none, or only that of a
// device that had its index before.
func (s *Store) of(l *link.Link) (*Record, error) {
	boot, netns, err := here()
	if err != nil {
		return nil, err
	}
	r, err := read(s.path(netns, l.Index))
	if err != nil || r.Boot != boot || r.Netns != netns || !r.Is(l) {
		r = &Record{Boot: boot, Netns: netns, Index: l.Index}
	}
	r.Name, r.MAC = l.Name, l.MAC.String()
	if r.Settings = maps.Clone(r.Settings); r.Settings == nil {
		r.Settings = map[string]string{}
	}
	return r, nil
}

// maxRecord is far more than a record has, in bytes.
const maxRecord = 64 << 10

func read(file string) (*Record, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// What is in it will be done to devices: only what we wrote ourselves counts.
	if st, ok := info.Sys().(*unix.Stat_t); ok && int(st.Uid) != os.Geteuid() || !info.Mode().IsRegular() || info.Size() > maxRecord {
		return nil, errors.New("not a record of ours")
	}
	var r Record
	return &r, json.NewDecoder(f).Decode(&r)
}

// write replaces the record's file at once and whole, or removes it where nothing
// is to be put back.
func (s *Store) write(r *Record) error {
	path := s.path(r.Netns, r.Index)
	if len(r.Settings) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget what %s was like: %w", r.Name, err)
		}
		_ = os.Remove(s.dir) // when it was the last
		return nil
	}
	text, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(s.dir, 0o755)
	}
	if err == nil {
		err = replace(path, text)
	}
	if err != nil {
		return fmt.Errorf("keep what %s was like: %w", r.Name, err)
	}
	return nil
}

func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "new-") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// here is the kernel's boot id and the calling thread's network namespace.
func here() (boot string, netns uint64, err error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0, fmt.Errorf("look up boot id: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return "", 0, fmt.Errorf("look at network namespace: %w", err)
	}
	return strings.TrimSpace(string(id)), st.Ino, nil
}
