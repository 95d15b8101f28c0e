package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvswitch/kvswitch/bench/testbed/netns"
)

var update = flag.Bool("update", false, "write testdata/session.txt anew")

const sessionFile = "testdata/session.txt"

// stepPatience is for one line of the session; a machine that is busy with
// other tests needs the most of it.
const stepPatience = 60 * time.Second

// TestSession plays testdata/session.txt: every verb of the command line, with
// its help, its documents and its refusals, and the paths of the control socket.
// What they print and how they end is compared with what the file says, but for
// what is another at each time, such as the uptime (see volatile).
//
// A change that is meant is recorded by -update, and read in the diff.
func TestSession(t *testing.T) {
	text, err := os.ReadFile(sessionFile)
	if err != nil {
		t.Fatal(err)
	}
	script := parseSession(string(text))
	s := newSession(t)
	var out strings.Builder
	differ := 0
	for _, st := range script {
		got := st.intro + st.line + "\n"
		if st.line != "" {
			got += s.play(st.line)
		}
		out.WriteString(got)
		if want := st.intro + st.line + "\n" + st.want; st.line != "" && got != want && !*update {
			differ++
			if differ <= 20 {
				t.Errorf("%s\n%s", st.line, difference(strings.TrimPrefix(want, st.intro), strings.TrimPrefix(got, st.intro)))
			}
		}
	}
	checkWhole(t, script)
	if differ > 20 {
		t.Errorf("%d more steps differ", differ-20)
	}
	if *update {
		if err := os.WriteFile(sessionFile, []byte(strings.TrimSuffix(out.String(), "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// step is one line of the session, and what is to follow.
type step struct {
	intro string // comments and blank lines before it
	line  string // "$ shell command" or "% what the test does itself"
	want  string
}

// parseSession reads the session: lines that begin with
//
//	#   are comments
//	$   are run by a shell on the host
//	%   are done by the test itself, see session.own
//	>   were on standard output
//	!   were on standard error, or in the log of a switch
//	=   is the exit status, if it is not 0
func parseSession(text string) (steps []step) {
	intro := ""
	for line := range strings.Lines(text) {
		switch last := len(steps) - 1; line[0] {
		case '>', '!', '=':
			steps[last].want += line
		case '$', '%':
			steps = append(steps, step{intro: intro, line: strings.TrimSuffix(line, "\n")})
			intro = ""
		default:
			intro += line
		}
	}
	return steps
}

// session is the host on which it is played.
type session struct {
	t     *testing.T
	host  *netns.Host
	far   *netns.Host
	dir   string // working directory
	env   []string
	runs  map[string]*netns.Proc // switches, by name
	known []string               // pairs: a name that is another each time, and what stands for it
	names *strings.Replacer      // of known
}

func newSession(t *testing.T) *session {
	lab := netns.New(t)
	s := &session{t: t, host: lab.Host("host"), far: lab.Host("far"), runs: map[string]*netns.Proc{}}
	for i, name := range []string{"p0", "p1", "p2"} {
		lab.Cable(s.host, name, s.far, name)
		s.host.SetMAC(name, mac(0x10+i))
	}
	s.far.Down("p2") // a port that stays down: no BPDU is sent there, nothing counts
	// Columns are as wide as what stands in them: the directory's name has always
	// the same length.
	s.dir = netns.Dir(t)
	s.dir = filepath.Join(s.dir, strings.Repeat("d", 31-len(s.dir)))
	bin := filepath.Join(s.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	binary, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	for name, of := range map[string]string{"kvswitch": "kvswitch", "kvswitch-ifup": "kvswitch", "kvswitch-ifdown": "kvswitch",
		"kvswitch-bridge-helper": "kvswitch-bridge-helper"} {
		if err := os.Symlink(filepath.Join(filepath.Dir(binary), of), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KVSWITCH_") })
	s.env = append(s.env, "LC_ALL=C", "TZ=UTC", "PATH="+bin+":"+os.Getenv("PATH"), "KVSWITCH_RUN_DIR="+filepath.Join(s.dir, "run"),
		"KVSWITCH_BRIDGE_CONF="+filepath.Join(s.dir, "bridge.conf"))
	s.know(s.dir, "DIR")
	s.know(binary, "PROGRAM")
	return s
}

// know puts a word in place of a name.
func (s *session) know(name, word string) {
	s.known = append(s.known, name, word)
	s.names = strings.NewReplacer(s.known...)
}

// play does one line and returns what it said, as it stands in the file.
func (s *session) play(line string) string {
	s.t.Helper()
	verb, rest := line[0], strings.TrimSpace(line[1:])
	var stdout, stderr string
	var code int
	if verb == '$' {
		stdout, stderr, code = s.shell(rest)
	} else {
		stdout, stderr, code = s.own(rest)
	}
	var b strings.Builder
	for _, part := range []struct{ mark, text string }{{">", stdout}, {"!", stderr}} {
		for l := range strings.Lines(s.still(rest, part.text)) {
			b.WriteString(strings.TrimRight(part.mark+" "+strings.TrimSuffix(l, "\n"), " ") + "\n")
		}
	}
	if code != 0 {
		fmt.Fprintf(&b, "= %d\n", code)
	}
	return b.String()
}

// command is a shell command on the host, in the session's directory.
func (s *session) command(text string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", text)
	cmd.Env, cmd.Dir = s.env, s.dir
	return cmd
}

func (s *session) shell(text string) (stdout, stderr string, code int) {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd := s.command(text)
	cmd.Stdout, cmd.Stderr = &out, &errs
	p := s.host.Start(cmd)
	select {
	case <-p.Done():
	case <-time.After(stepPatience):
		p.Kill()
		s.t.Fatalf("%s: not done after %v\n%s%s", text, stepPatience, &out, &errs)
	}
	return out.String(), errs.String(), exitCode(s.t, text, p.Err())
}

// exitCode is the exit status of a process, 128 and the signal's number if it
// was killed.
func exitCode(t *testing.T, what string, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		t.Fatalf("%s: %v", what, err)
	}
	return exit.ExitCode()
}

// own does what a shell can't:
//
//	start NAME WORDS...    run a switch of that name and wait until it is ready
//	begin NAME COMMAND     run something else beside what follows
//	stop NAME              end either by SIGTERM; its log is what it said
//	quit NAME              the same without the log, where its order is chance
//	get WHERE PATH         HTTP, of a switch's control socket or an address
//	call WHERE METHOD PATH BODY
//	frame PORT HEX         a frame from the far end of a cable
func (s *session) own(text string) (stdout, stderr string, code int) {
	s.t.Helper()
	verb, rest, _ := strings.Cut(text, " ")
	words := strings.Fields(rest)
	switch verb {
	case "start":
		s.start(words[0], strings.TrimPrefix(rest, words[0]))
	case "begin":
		s.runs[words[0]] = s.host.Start(s.command(strings.TrimPrefix(rest, words[0])))
	case "stop", "quit":
		p := s.runs[words[0]]
		code := exitCode(s.t, text, p.Stop(stopPatience))
		if verb == "quit" {
			return "", "", code
		}
		return "", p.Log(), code
	case "get":
		return s.http(words[0], "GET", words[1], ""), "", 0
	case "call":
		return s.http(words[0], words[1], words[2], strings.Join(words[3:], " ")), "", 0
	case "frame":
		station := s.far.Station(words[0])
		station.Send(unhex(words[1]))
		station.Close()
	default:
		s.t.Fatalf("unknown step %q", text)
	}
	return "", "", 0
}

func (s *session) start(name, words string) {
	s.t.Helper()
	p := s.host.Start(s.command("exec kvswitch run" + words))
	s.runs[name] = p
	netns.Await(s.t, startPatience, "switch "+name+" is ready", func() error {
		select {
		case <-p.Done():
			s.t.Fatalf("kvswitch run%s ended: %v\n%s", words, p.Err(), p.Log())
		default:
		}
		stdout, stderr, code := s.shell("kvswitch show --json -s " + name)
		if code != 0 {
			return errors.New(stderr)
		}
		var st statusDoc
		if err := json.Unmarshal([]byte(stdout), &st); err != nil {
			return err
		}
		if _, own, _ := strings.Cut(st.BridgeID, "."); !strings.HasPrefix(own, "02") { // made up
			s.know(own, "OWNADDRESS")
			s.know(net.HardwareAddr(unhex(own)).String(), "OWN:ADDRESS")
		}
		return nil
	})
}

func unhex(text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return b
}

// http asks and returns the status, the type and the body. Of metrics it returns
// the switch's own.
func (s *session) http(where, method, path, body string) string {
	s.t.Helper()
	network, address := "tcp", where
	if !strings.Contains(where, ":") {
		network, address = "unix", filepath.Join(s.dir, "run", where+".sock")
	}
	var conn net.Conn
	err := s.host.Do(func() (err error) { conn, err = net.Dial(network, address); return err })
	if err != nil {
		s.t.Fatal(err)
	}
	client := http.Client{Timeout: stepPatience, Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }, DisableKeepAlives: true}}
	req, err := http.NewRequest(method, "http://switch"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	out := fmt.Sprintf("%d %s\n", resp.StatusCode, resp.Header.Get("Content-Type"))
	for line := range strings.Lines(string(text)) {
		if network == "unix" || strings.Contains(line, "kvswitch_") {
			out += line
		}
	}
	return out
}

// volatile is what is another at each time, or on each machine: in what a step
// says that holds the first text, the second is replaced by the third.
// Everything else has to be the same to the last byte.
var volatile = []struct {
	step string
	find *regexp.Regexp
	put  string
}{
	// Time.
	{"", regexp.MustCompile(`"time":"[^"]*"`), `"time":"TIME"`},
	{"", regexp.MustCompile(`(?m)^time=\S+`), `time=TIME`},
	{"lines", regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{6} `), `TIME `},
	{"", regexp.MustCompile(`("uptime_s": ?|kvswitch_uptime_seconds\{.*\} )[0-9.e+]+`), `${1}UPTIME`},
	{"", regexp.MustCompile(`("type": ?"dynamic",\s*"age_s": ?)[0-9.]+`), `${1}AGE`},
	{"fdb show", regexp.MustCompile(`( dynamic +)[0-9.]+s`), `${1}AGE`},
	{"showmacs", regexp.MustCompile(`(\tno\t\t) *[0-9.]+`), `${1}AGE`},
	{"stp", regexp.MustCompile(`("(?:fd_while|hello_when|edge_delay_while|mdelay_while|tc_while|since_topology_change|recover_in|tx_count|tx_rst)": ?)\d+`), `${1}N`},
	{"showstp", regexp.MustCompile(`((?:hello|forward delay|message age) timer\t+) *[0-9.]+`), `${1}N`},
	{"stp show", regexp.MustCompile(`(?m)^(\S+ +[0-9a-f]{4} .* \d+ +)\d+ ( +)`), `${1}N ${2}`}, // BPDUs sent
	// Processes and devices.
	{"", regexp.MustCompile(`\((pid|process) \d+\)`), `($1 PID)`},
	{"", regexp.MustCompile(`(?s)("detail": \{\s+"index": )\d+(,\s+"interface": "[^"]+",\s+"kind": "\w+",).*?(\n\s*\})`), `${1}N${2} RECEIVE${3}`},
	{"port show", regexp.MustCompile(`(?m)^index .*\n`), ``},
	{"port show", regexp.MustCompile(`(?m)^(receive|not_bpf|rings|shield|slots|slot_bytes) .*\n`), ``},
	{"", regexp.MustCompile(`("tso6": true,\s+"uso": )\w+`), `${1}EITHER`}, // Linux 6.2 and later
	{"port show", regexp.MustCompile(`(csum tso4 tso6)( uso)?`), `${1} EITHER`},
	// The program and the machine.
	{"", regexp.MustCompile(`(?m)^kvswitch \S+ go\S+ linux/\w+$`), `kvswitch VERSION GO PLATFORM`},
	{"kvswitch version", regexp.MustCompile(`"(go|platform|version)": "[^"]+"`), `"$1": "SOME"`},
	{"/metrics", regexp.MustCompile(`version="[^"]+"`), `version="VERSION"`},
	{"doctor", regexp.MustCompile(`(?m)^(ok|warn|fail|info) +(.{17}) \S.*$`), `STATUS $2 TEXT`},
	{"doctor", regexp.MustCompile(`"(status|text|mend)": ".*"`), `"$1": "SOME"`},
}

// still replaces what is volatile.
func (s *session) still(step, text string) string {
	text = s.names.Replace(text)
	for _, v := range volatile {
		if strings.Contains(step, v.step) {
			text = v.find.ReplaceAllString(text, v.put)
		}
	}
	return text
}

// difference shows the lines in which two texts differ.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for len(w) > 0 && len(g) > 0 && w[0] == g[0] {
		w, g = w[1:], g[1:]
	}
	for len(w) > 0 && len(g) > 0 && w[len(w)-1] == g[len(g)-1] {
		w, g = w[:len(w)-1], g[:len(g)-1]
	}
	return "recorded:\n\t" + strings.Join(w, "\n\t") + "\nnow:\n\t" + strings.Join(g, "\n\t")
}

// checkWhole checks that no verb is left out: each has been asked for its help,
// as each of that help's list has, and the last ones have been used.
func checkWhole(t *testing.T, script []step) {
	t.Helper()
	verb := regexp.MustCompile(`kvswitch((?: [a-z-]+)*)`)
	helped, used := map[string]bool{}, map[string]bool{}
	for _, st := range script {
		for _, m := range verb.FindAllStringSubmatch(st.line, -1) {
			words := m[1]
			if v, ok := strings.CutSuffix(words, " --help"); ok {
				helped[v] = true
				continue
			}
			for used[words] = true; words != ""; used[words] = true {
				words = words[:strings.LastIndex(words, " ")]
			}
		}
	}
	for _, st := range script {
		words, ok := strings.CutSuffix(strings.TrimPrefix(st.line, "$ kvswitch"), " --help")
		_, list, group := strings.Cut(st.want, "> Available Commands:\n")
		if !ok {
			continue
		}
		if !group && !used[words] {
			t.Errorf("the session does not use kvswitch%s", words)
		}
		for line := range strings.Lines(list) {
			name, _, _ := strings.Cut(strings.TrimPrefix(line, ">   "), " ")
			if !strings.HasPrefix(line, ">   ") {
				break
			}
			if !helped[words+" "+name] {
				t.Errorf("the session does not ask for kvswitch%s %s --help", words, name)
			}
		}
	}
}
