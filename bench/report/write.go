package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

// Write writes all forms of the report into a directory, which must exist.
func Write(dir string, r *Report) error {
	for _, f := range forms {
		if err := writeFile(filepath.Join(dir, f.name), r, f.write); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return nil
}

func writeFile(path string, r *Report, write func(io.Writer, *Report) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	return write(f, r)
}
