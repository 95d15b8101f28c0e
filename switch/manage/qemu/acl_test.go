package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestACLPolicy(t *testing.T) {
	for _, c := range []struct {
		name, text string
		allowed    []string
		denied     []string
	}{
		{"empty denies", "", nil, []string{"kvs0", "all", ""}},
		{"comments and blank lines", "# a\n\n   \n\t# b\nallow kvs0\n", []string{"kvs0"}, []string{"kvs1"}},
		{"allow all", "allow all", []string{"kvs0", "br9"}, nil},
		{"deny wins before", "deny kvs0\nallow kvs0", nil, []string{"kvs0"}},
		{"deny wins after", "allow kvs0\ndeny kvs0", nil, []string{"kvs0"}},
		{"deny one of all", "allow all\ndeny kvs0", []string{"kvs1"}, []string{"kvs0"}},
		{"deny all wins", "deny all\nallow kvs0", nil, []string{"kvs0"}},
		{"white space", "  allow \t kvs0  \r\nallow\tkvs1\n", []string{"kvs0", "kvs1"}, []string{"kvs2"}},
		{"names are whole", "allow kvs\nallow kvs01", []string{"kvs"}, []string{"kvs0", "kvs1"}},
		{"no newline at the end", "allow kvs0", []string{"kvs0"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var rules acl
			if err := rules.parse(strings.NewReader(c.text), func(string) error { return nil }); err != nil {
				t.Fatal(err)
			}
			for _, n := range c.allowed {
				if !rules.permits(n) {
					t.Errorf("%q is denied", n)
				}
			}
			for _, n := range c.denied {
				if rules.permits(n) {
					t.Errorf("%q is allowed", n)
				}
			}
		})
	}
}

func TestACLRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"allow", "line 1"},
		{"allow kvs0\npermit kvs1", `line 2: unknown command "permit"`},
		{"Allow kvs0", "unknown command"},
		{"allow kvs0\nlimit many", "line 2: limit"},
		{"limit -1", "0 to 65535"},
		{"allow " + strings.Repeat("x", maxACLLine), "too long"},
		{strings.Repeat("allow x\n", maxACLRules+1), "more than"},
	} {
		var rules acl
		if err := rules.parse(strings.NewReader(c.text), func(string) error { return nil }); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.20q: error %v, want %q in it", c.text, err, c.want)
		}
	}
}

// someone is a user who owns nothing here.
var someone = &user32{uid: 4242, gid: 4242, groups: []uint32{4343}}

// openDir is a directory that others may search, and root owns.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestACLFirstFileThatExistsCounts(t *testing.T) {
	dir := openDir(t)
	own, qemus := filepath.Join(dir, "own"), filepath.Join(dir, "qemu")
	if _, err := readACL([]string{own, qemus}, someone); err == nil || !strings.Contains(err.Error(), own) {
		t.Errorf("no file: error %v, want one that names %s", err, own)
	}
	write(t, qemus, "allow kvs0", 0o644)
	if rules, err := readACL([]string{own, qemus}, someone); err != nil || !rules.permits("kvs0") {
		t.Errorf("QEMU's file alone: %v, %v", rules, err)
	}
	write(t, own, "allow kvs1", 0o644)
	if rules, err := readACL([]string{own, qemus}, someone); err != nil || rules.permits("kvs0") || !rules.permits("kvs1") {
		t.Errorf("both files: %v, %v", rules, err)
	}
	// A broken or unreadable list is not passed over for a laxer one.
	write(t, own, "allow", 0o644)
	if _, err := readACL([]string{own, qemus}, someone); err == nil {
		t.Error("a broken file was passed over")
	}
	write(t, own, "allow kvs1", 0o600)
	if _, err := readACL([]string{own, qemus}, someone); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("an unreadable file: %v", err)
	}
}

// Includes give rules to those who may read them, and to nobody else.
func TestACLIncludesCountForTheirReaders(t *testing.T) {
	dir := openDir(t)
	member := write(t, filepath.Join(dir, "member"), "allow kvs1\n", 0o640)
	hidden := filepath.Join(dir, "hidden")
	if err := os.Mkdir(hidden, 0o700); err != nil {
		t.Fatal(err)
	}
	inHidden := write(t, filepath.Join(hidden, "f"), "allow kvs2", 0o644)
	top := write(t, filepath.Join(dir, "top"),
		"allow kvs0\ninclude "+member+"\ninclude "+inHidden+"\ninclude /nonexistent\ninclude "+filepath.Join(dir, "top")+"\nallow kvs3\n", 0o644)
	if os.Geteuid() == 0 {
		if err := os.Chown(member, 0, 4343); err != nil {
			t.Fatal(err)
		}
	}
	check := func(who *user32, allowed ...string) {
		t.Helper()
		rules, err := readACL([]string{top}, who)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"kvs0", "kvs1", "kvs2", "kvs3"} {
			want := strings.Contains(strings.Join(allowed, " "), n)
			if rules.permits(n) != want {
				t.Errorf("uid %d: %s allowed is %v, want %v", who.uid, n, !want, want)
			}
		}
	}
	check(&user32{uid: 0}, "kvs0", "kvs1", "kvs2", "kvs3")
	check(&user32{uid: 4444, gid: 4444}, "kvs0", "kvs3")
	if os.Geteuid() == 0 {
		check(someone, "kvs0", "kvs1", "kvs3") // by group
		check(&user32{uid: 4444, gid: 4343}, "kvs0", "kvs1", "kvs3")
	}
}

// What is in a list is its owner's word, and his only, and reading it never waits.
func TestACLRefusesFilesThatAreNotTheHostsOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	dir := openDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	given := write(t, path("given"), "allow kvs0\n", 0o644)
	if err := os.Chown(given, 4242, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path("fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		given: "belongs to user 4242",
		write(t, path("group"), "allow kvs0\n", 0o664): "may be written by others",
		write(t, path("world"), "allow kvs0\n", 0o646): "may be written by others",
		path("fifo"): "no regular file",
		path("dir"):  "no regular file",
		"/dev/zero":  "no regular file",
		write(t, path("big"), strings.Repeat("# comment\n", maxACLFile/10+1), 0o644):               "bytes",
		write(t, path("nonsense"), "allow kvs0\nnonsense\ndeny kvs1\n", 0o644):                     "line 2",
		write(t, path("too many"), "include "+chain(t, dir, maxACLInclude+1), 0o644):               "files within files",
		write(t, path("again"), strings.Repeat("include "+path("again")+"\n", maxACLFiles), 0o644): "more than 64 files",
		write(t, path("wide"), wide(t, dir, maxACLFiles), 0o644):                                   "more than 64 files",
	} {
		for how, list := range map[string]string{
			"itself":   name,
			"included": write(t, path("top"), "allow kvs0\nallow kvs1\ninclude "+name+"\n", 0o644),
		} {
			rules, err := readACL([]string{list}, someone)
			if err == nil || !strings.Contains(err.Error(), want) || rules.permits("kvs0") {
				t.Errorf("%s, %s: %v; want %q", name, how, err, want)
			}
		}
	}
}

// chain makes n files that include one another, and returns the first.
func chain(t *testing.T, dir string, n int) (path string) {
	path = "/nonexistent"
	for i := range n {
		path = write(t, filepath.Join(dir, fmt.Sprint("chain", i)), "include "+path+"\n", 0o644)
	}
	return path
}

// wide makes n files, and returns a list that includes them all.
func wide(t *testing.T, dir string, n int) (text string) {
	for i := range n {
		text += "include " + write(t, filepath.Join(dir, fmt.Sprint("wide", i)), "", 0o644) + "\n"
	}
	return text
}

// A file counts once, however often it includes itself: that ends, and costs
// nothing.
func TestACLFileIsReadOnce(t *testing.T) {
	dir := openDir(t)
	top, other := filepath.Join(dir, "top"), filepath.Join(dir, "other")
	write(t, other, strings.Repeat("include "+top+"\n", 20), 0o644)
	write(t, top, strings.Repeat("include "+top+"\ninclude "+other+"\n", 20)+"allow kvs0\n", 0o644)
	rules, err := readACL([]string{top}, someone)
	if err != nil || !rules.permits("kvs0") || len(rules.rules) != 1 || len(rules.files) != 2 {
		t.Errorf("%d rules of %d files, %v", len(rules.rules), len(rules.files), err)
	}
}

func TestACLLimitsTaps(t *testing.T) {
	dir := openDir(t)
	mine := write(t, filepath.Join(dir, "mine"), "limit 64\n", 0o640)
	if os.Geteuid() == 0 {
		if err := os.Chown(mine, 0, 4343); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]int{
		"allow kvs0":                                defaultTaps,
		"allow kvs0\nlimit 3":                       3,
		"limit 3\nallow kvs0\nlimit 0":              0,
		"allow kvs0\nlimit 3\ninclude " + mine:      64,
		"allow kvs0\ninclude " + mine + "\nlimit 2": 2,
	} {
		rules, err := readACL([]string{write(t, filepath.Join(dir, "list"), text, 0o644)}, someone)
		if err != nil || rules.limit != want {
			t.Errorf("%q: limit %d, %v; want %d", text, rules.limit, err, want)
		}
	}
}

// The first class that applies decides, even if a later one would allow it.
func TestACLReadableIsByTheFirstClass(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	dir := openDir(t)
	for _, c := range []struct {
		mode     os.FileMode
		uid, gid int
		want     bool
	}{
		{0o044, 4242, 4242, false}, // owner may not, group and others may
		{0o604, 0, 4242, false},    // group may not, others may
		{0o604, 0, 4343, false},
		{0o400, 4242, 0, true},
		{0o040, 0, 4343, true},
		{0o004, 0, 0, true},
		{0o640, 0, 0, false},
	} {
		f := write(t, filepath.Join(dir, "f"), "", 0o600)
		os.Chown(f, c.uid, c.gid)
		os.Chmod(f, c.mode)
		if err := someone.mayRead(f); (err == nil) != c.want {
			t.Errorf("mode %o of %d:%d: %v, want readable %v", c.mode, c.uid, c.gid, err, c.want)
		}
		os.Remove(f)
	}
}

func FuzzACLDeniesByDefault(f *testing.F) {
	f.Add("allow kvs0\ndeny kvs1\ninclude /x\n# c\n", "kvs0")
	f.Add("allow all", "x")
	f.Fuzz(func(t *testing.T, text, name string) {
		var rules acl
		if rules.parse(strings.NewReader(text), func(string) error { return nil }); len(rules.rules) > maxACLRules {
			t.Fatalf("%d rules", len(rules.rules))
		}
		allow, deny := false, false
		for _, r := range rules.rules {
			if r.name == name || r.name == "all" {
				allow, deny = allow || r.allow, deny || !r.allow
			}
		}
		if got := rules.permits(name); got != (allow && !deny) {
			t.Fatalf("permits(%q) is %v with allow %v, deny %v", name, got, allow, deny)
		}
		if !strings.Contains(text, "allow") && rules.permits(name) {
			t.Fatal("allowed without a word of it")
		}
	})
}
