package qemu

import (
	"bufio"
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
	maxACLLine    = 4095 // bytes, as qemu-bridge-helper's
	maxACLRules   = 4096
	maxACLInclude = 8 // files within files
)

// errDenied is the answer to a user whom the list does not allow a switch.
var errDenied = errors.New("access denied by acl file")

// aclRule is one allow or deny line.
type aclRule struct {
	allow bool
	name  string // of the switch; "all" is every one
}

// acl is the rules of a list and of all that it includes.
type acl []aclRule

// permits is qemu-bridge-helper's policy: deny unless allowed, and a deny wins
// over every allow wherever it stands.
func (rules acl) permits(name string) bool {
	allowed := false
	for _, r := range rules {
		if r.name == "all" || r.name == name {
			if !r.allow {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

// parse adds the rules of one file. include is called for each include line;
// what it can't read is passed over, as the original does: an include that only
// some users may read gives them rules of their own.
func (rules *acl) parse(r io.Reader, include func(path string)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 1024), maxACLLine)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.IndexAny(line, " \t")
		if i < 0 {
			return fmt.Errorf("line %d: %q: want allow, deny or include and a name", n, line)
		}
		word, arg := line[:i], strings.TrimSpace(line[i:])
		switch word {
		case "allow", "deny":
			if len(*rules) == maxACLRules {
				return fmt.Errorf("line %d: more than %d rules", n, maxACLRules)
			}
			*rules = append(*rules, aclRule{allow: word == "allow", name: arg})
		case "include":
			include(arg)
		default:
			return fmt.Errorf("line %d: unknown command %q: want allow, deny or include", n, word)
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
		var rules acl
		err := rules.read(p, who, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("parse acl file: %w", err)
		}
		return rules, nil
	}
	return nil, fmt.Errorf("no acl file: write a line such as \"allow kvs0\" into %s", paths[0])
}

func (rules *acl) read(path string, who *user32, depth int) error {
	if err := who.mayRead(path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := rules.parse(f, func(included string) {
		if depth < maxACLInclude {
			_ = rules.read(included, who, depth+1)
		}
	}); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
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
