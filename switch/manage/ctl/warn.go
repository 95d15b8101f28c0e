package ctl

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/kvswitch/kvswitch/switch/manage/config"
)

// A request that was done may still have brought about something to be warned
// of: the log says so, and the answer does, in Warning headers of code 299 (RFC
// 7234 5.5.7), one for each.

const warningStart = `299 kvswitch `

// warnings are what is to be known of switch and ports now, a line each.
func (s *Server) warnings() map[string]bool {
	all := map[string]bool{}
	for _, w := range s.sw.Warnings() {
		line := config.Advise(w.Text, &w.Config)
		if w.Port != "" && !strings.HasPrefix(line, w.Port+": ") {
			line = w.Port + ": " + line
		}
		all[line] = true
	}
	return all
}

// warn puts into an answer's header what is true since the request was done.
func warn(header http.Header, before, now map[string]bool) {
	for _, line := range slices.Sorted(maps.Keys(now)) {
		if !before[line] {
			header.Add("Warning", warningStart+strconv.QuoteToASCII(line))
		}
	}
}

// warned takes the warnings out of an answer's header.
func warned(header http.Header) (lines []string) {
	for _, value := range header.Values("Warning") {
		quoted, ok := strings.CutPrefix(value, warningStart)
		if !ok {
			continue
		}
		if line, err := strconv.Unquote(quoted); err == nil {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	return lines
}
