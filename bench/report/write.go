package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// JSON writes the document.
func JSON(w io.Writer, r *Report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// forms are the files that Write makes.
var forms = []struct {
	name  string
	write func(io.Writer, *Report) error
}{
	{"report.json", JSON},
	{"report.html", HTML},
	{"results.md", Markdown},
}

// Prepare makes the directory for reports if it isn't there, and shows that
// files can be made in it: before a run of half an hour, not after it.
func Prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make report directory: %w", err)
	}
	f, err := os.CreateTemp(dir, temporary)
	if err != nil {
		return fmt.Errorf("try report directory: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// temporary is the pattern of files that are being written.
const temporary = ".kvswitch-bench-*"

// Write writes all forms of the report into a directory, which must exist, and
// returns the path of the JSON document. Each file is there whole or not at all.
// A report that is not complete takes no complete one's place: it is called
// report-incomplete.json and so on then.
func Write(dir string, r *Report) (string, error) {
	suffix := ""
	if !r.Complete && holdsComplete(dir) {
		suffix = "-incomplete"
	}
	name := func(form string) string {
		ext := filepath.Ext(form)
		return filepath.Join(dir, strings.TrimSuffix(form, ext)+suffix+ext)
	}
	for _, f := range forms {
		if err := writeFile(name(f.name), r, f.write); err != nil {
			return "", fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return name(forms[0].name), nil
}

// holdsComplete reports that a directory has the report of a run that was not
// interrupted.
func holdsComplete(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, forms[0].name))
	if err != nil {
		return false
	}
	var there struct {
		Complete bool `json:"complete"`
	}
	return json.Unmarshal(text, &there) == nil && there.Complete
}

// writeFile writes beside the file and renames, so that who reads it, or a full
// disk, never finds half of it.
func writeFile(path string, r *Report, write func(io.Writer, *Report) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), temporary)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = write(f, r)
	if err == nil {
		err = f.Chmod(0o644) // what CreateTemp makes is for its owner alone
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
