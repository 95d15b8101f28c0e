package link

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A name passes if and only if the kernel's dev_valid_name lets it pass, which
// looks at bytes.
func FuzzCheckName(f *testing.F) {
	for _, name := range []string{"eth0", "", ".", "..", "...", "sixteen-bytes-xx", "a b", "à", "é", "\xff", "eth0:1", "a/b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		valid := name != "" && len(name) < unix.IFNAMSIZ && name != "." && name != ".."
		for i := range len(name) {
			switch name[i] {
			case 0, '/', ':', ' ', '\t', '\n', '\v', '\f', '\r', 0xa0:
				valid = false
			}
		}
		err := CheckName(name)
		if (err == nil) != valid {
			t.Errorf("%q: %v, valid %v", name, err, valid)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: an error of several lines: %v", name, err)
		}
	})
}
