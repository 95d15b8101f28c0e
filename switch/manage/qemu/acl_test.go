package qemu

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
			if err := rules.parse(strings.NewReader(c.text), func(string) {}); err != nil {
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
		{"allow " + strings.Repeat("x", maxACLLine), "too long"},
		{strings.Repeat("allow x\n", maxACLRules+1), "more than"},
	} {
		var rules acl
		if err := rules.parse(strings.NewReader(c.text), func(string) {}); err == nil || !strings.Contains(err.Error(), c.want) {
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
	member := write(t, filepath.Join(dir, "member"), "allow kvs1\nnonsense", 0o640)
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
		if rules.parse(strings.NewReader(text), func(string) {}); len(rules) > maxACLRules {
			t.Fatalf("%d rules", len(rules))
		}
		allow, deny := false, false
		for _, r := range rules {
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
