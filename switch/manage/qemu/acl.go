package qemu

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ACLFiles are the access control lists of the bridge helper. The first that
// exists counts: kvswitch's own, or the one that QEMU's helper reads. The
// switch's environment may name another one in KVSWITCH_BRIDGE_CONF.
func ACLFiles() []string {
	if path := os.Getenv("KVSWITCH_BRIDGE_CONF"); path != "" {
		return []string{path}
	}
	return []string{"/etc/kvswitch/bridge.conf", "/etc/qemu/bridge.conf"}
}

// Limits of an access control list.
const (
	maxACLLine    = 4095     // bytes, as qemu-bridge-helper's
	maxACLFile    = 64 << 10 // bytes
	maxACLRules   = 4096
	maxACLInclude = 8  // files within files
	maxACLFiles   = 64 // that one question may read
)

// defaultTaps is how many taps a user may have unless the list says otherwise:
// more than anybody's machines on a shared host have cards, and few enough that
// a thousand users leave port numbers to others.
const defaultTaps = 16

// errDenied is the answer to a user whom the list does not allow a switch.
var errDenied = errors.New("access denied by acl file")

// aclRule is one allow or deny line.
type aclRule struct {
	allow bool
	name  string // of the switch; "all" is every one
}

// acl is what a list and all that it includes say to one user.
type acl struct {
	rules  []aclRule
	limit  int           // taps that he may have
	opened int           // files so far, some of them more than once
	files  []fs.FileInfo // those read
}

// permits is qemu-bridge-helper's policy: deny unless allowed, and a deny wins
// over every allow wherever it stands.
func (a *acl) permits(name string) bool {
	allowed := false
	for _, r := range a.rules {
		if r.name == "all" || r.name == name {
			if !r.allow {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

// parse adds what one file says. include is called for each include line. The
// word limit is ours: QEMU's own helper does not know it, so it belongs into
// kvswitch's own list. Of several, the last counts.
func (a *acl) parse(r io.Reader, include func(path string) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 1024), maxACLLine)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.IndexAny(line, " \t")
		if i < 0 {
			return fmt.Errorf("line %d: %q: want allow, deny, include or limit and a value", n, line)
		}
		word, arg := line[:i], strings.TrimSpace(line[i:])
		switch word {
		case "allow", "deny":
			if len(a.rules) == maxACLRules {
				return fmt.Errorf("line %d: more than %d rules", n, maxACLRules)
			}
			a.rules = append(a.rules, aclRule{allow: word == "allow", name: arg})
		case "limit":
			limit, err := strconv.ParseUint(arg, 10, 16)
			if err != nil {
				return fmt.Errorf("line %d: limit %q: want how many taps a user may have, 0 to 65535", n, arg)
			}
			a.limit = int(limit)
		case "include":
			if err := include(arg); err != nil {
				return fmt.Errorf("line %d: include: %w", n, err)
			}
		default:
			return fmt.Errorf("line %d: unknown command %q: want allow, deny, include or limit", n, word)
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

// readACL reads the first of paths that exists, as who would read it: a file
// that this user may not read is as if it were not readable to us.
func readACL(paths []string, who *user32) (acl, error) {
	for _, p := range paths {
		list := acl{limit: defaultTaps}
		err := list.read(p, who, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return acl{}, fmt.Errorf("parse acl file: %w", err)
		}
		return list, nil
	}
	return acl{}, fmt.Errorf("no acl file: write a line such as \"allow kvs0\" into %s", paths[0])
}

// read adds a file. An include that is not there, or that who may not read, is
// passed over, as the original does: one that only some users may read gives them
// rules of their own. With anything else that is wrong with it the whole list is
// wrong, for what it would have denied is not known.
func (a *acl) read(path string, who *user32, depth int) error {
	switch {
	case a.opened == maxACLFiles:
		return fmt.Errorf("%s: more than %d files in one list", path, maxACLFiles)
	case depth > maxACLInclude:
		return fmt.Errorf("%s: files within files, more than %d deep", path, maxACLInclude)
	}
	a.opened++
	if err := who.mayRead(path); err != nil {
		return err
	}
	text, file, err := readOwn(path)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(a.files, func(read fs.FileInfo) bool { return os.SameFile(read, file) }) {
		return nil // it has nothing new to say, above all when it includes itself
	}
	a.files = append(a.files, file)
	if err := a.parse(bytes.NewReader(text), func(included string) error {
		err := a.read(included, who, depth+1)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		return err
	}); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// readOwn reads a file of the host's own: a regular one of limited size, which
// belongs to root or to whom this process runs as, and which nobody else may
// write. Opening and reading it never waits for anybody.
func readOwn(path string) (text []byte, st fs.FileInfo, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	switch {
	case !st.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s is no regular file", path)
	case owner != 0 && int(owner) != os.Geteuid():
		return nil, nil, fmt.Errorf("%s belongs to user %d: chown root it", path, owner)
	case st.Mode().Perm()&0o022 != 0:
		return nil, nil, fmt.Errorf("%s may be written by others than its owner: chmod go-w it", path)
	case st.Size() > maxACLFile:
		return nil, nil, fmt.Errorf("%s has %d bytes; a list has at most %d", path, st.Size(), maxACLFile)
	}
	text, err = io.ReadAll(io.LimitReader(f, maxACLFile+1))
	if err == nil && len(text) > maxACLFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxACLFile)
	}
	return text, st, err
}

// user32 is a user as the kernel's permission checks see one.
type user32 struct {
	uid, gid uint32
	groups   []uint32
}

// lookUpUser adds the supplementary groups that the system's user database
// gives to uid.
func lookUpUser(uid, gid uint32) *user32 {
	who := &user32{uid: uid, gid: gid}
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return who
	}
	ids, _ := u.GroupIds()
	for _, id := range ids {
		if g, err := strconv.ParseUint(id, 10, 32); err == nil {
			who.groups = append(who.groups, uint32(g))
		}
	}
	return who
}

// mayRead is open(2)'s check by the permission bits of the file and of the
// directories above it. The helper of QEMU gives up its privileges before it
// reads a list; a daemon that decides for another process can't, and asks this.
func (who *user32) mayRead(path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if err := who.access(path, 4); err != nil {
		return err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := who.access(dir, 1); err != nil {
			return err
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// access checks for want, 4 to read and 1 to search, as path_resolution(7) has
// it: the first class that applies decides.
func (who *user32) access(path string, want uint32) error {
	if who.uid == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	bits := st.Mode
	switch {
	case st.Uid == who.uid:
		bits >>= 6
	case st.Gid == who.gid || slices.Contains(who.groups, st.Gid):
		bits >>= 3
	}
	if bits&want == 0 {
		return &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	return nil
}
