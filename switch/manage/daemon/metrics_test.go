package daemon

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/port/mem"

	"github.com/goccy/go-yaml"
)

// scrape serves the metrics of a switch with one port and returns a path's answer.
func scrape(t *testing.T, path string) string {
	t.Helper()
	sw, err := vswitch.New(vswitch.Config{Name: "kvs0"})
	if err != nil {
		t.Fatal(err)
	}
	port := mem.NewPort()
	port.SetState(func(s *frame.State) { s.Speed = 1e9 })
	if _, err := sw.AddPort("vm1", port, vswitch.NewPortConfig("memory")); err != nil {
		t.Fatal(err)
	}
	m, err := listenMetrics("127.0.0.1:0", sw, "test")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- m.serve() }()
	defer func() {
		m.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		sw.Close()
	}()
	req, _ := http.NewRequestWithContext(context.Background(), "GET", "http://"+m.ln.Addr().String()+path, nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %s", err, resp.Status)
	}
	return string(text)
}

// Series are there from the start, so that a rate sees the first drop and an alert
// the first hold: one for each state, role, guard and reason, and one of each kind
// is 1.
func TestMetricsHaveAllTheirSeriesFromTheStart(t *testing.T) {
	text := scrape(t, "/metrics")
	series := func(name string) (all, ones int) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, name+"{") && strings.Contains(line, `port="vm1"`) {
				all++
				if strings.HasSuffix(line, " 1\n") {
					ones++
				}
			}
		}
		return all, ones
	}
	for name, want := range map[string][2]int{
		"kvswitch_port_stp_state":   {6, 1},
		"kvswitch_port_stp_role":    {5, 1},
		"kvswitch_port_guard_holds": {4, 0},
		"kvswitch_port_drops_total": {len(vswitch.DropReasons()), 0},
	} {
		if all, ones := series(name); all != want[0] || ones != want[1] {
			t.Errorf("%s: %d series, %d of them 1, want %v", name, all, ones, want)
		}
	}
	if !strings.Contains(text, `kvswitch_port_stp_state{port="vm1",state="forwarding",switch="kvs0"} 1`+"\n") {
		t.Error("vm1 does not forward")
	}
	if len(vswitch.DropReasons()) < 20 {
		t.Errorf("reasons: %q", vswitch.DropReasons())
	}
	if !strings.Contains(text, `kvswitch_port_speed_bytes_per_second{port="vm1",switch="kvs0"} 1.25e+08`+"\n") {
		t.Error("the port of 1 Gbit/s has no speed of 125 MB/s")
	}
	if page := scrape(t, "/"); !strings.Contains(page, `<a href="/metrics">`) {
		t.Errorf("the start page has no link: %s", page)
	}
}

// Dashboard and rules ask for what there is.
func TestDashboardAndAlertsNameMetricsThatThereAre(t *testing.T) {
	have := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (kvswitch_\w+) `).FindAllStringSubmatch(scrape(t, "/metrics"), -1) {
		have[m[1]] = true
	}
	dir := "../../../cmd/kvswitch/grafana"
	for name, parse := range map[string]func([]byte) error{
		"kvswitch.json": func(b []byte) error { return json.Unmarshal(b, new(map[string]any)) },
		"alerts.yaml":   func(b []byte) error { return yaml.Unmarshal(b, new(map[string]any)) },
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := parse(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		names := regexp.MustCompile(`kvswitch_\w+`).FindAllString(string(text), -1)
		if len(names) < 5 {
			t.Errorf("%s asks for %d metrics", name, len(names))
		}
		for _, n := range names {
			if !have[n] {
				t.Errorf("%s: there is no metric %s", name, n)
			}
		}
		for _, m := range regexp.MustCompile(`reason=~?\\?"([a-z|-]+)`).FindAllStringSubmatch(string(text), -1) {
			for reason := range strings.SplitSeq(m[1], "|") {
				if !strings.Contains(strings.Join(vswitch.DropReasons(), " "), reason) {
					t.Errorf("%s: no frame is dropped for %s", name, reason)
				}
			}
		}
	}
}
