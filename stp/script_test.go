package stp

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the transcripts in testdata anew")

// TestScripts runs testdata/*.txt and compares the transcripts; the language is
// in testdata/README.md.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { runScript(t, f) })
	}
}

func runScript(t *testing.T, file string) {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := playScript(t, file, src)
	golden := strings.TrimSuffix(file, ".txt") + ".golden"
	if *update {
		if err := os.WriteFile(golden, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the transcript differs: %s", golden, firstDifference(string(got), string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n got: %s\nwant: %s", i+1, a, b)
		}
	}
	return "nowhere"
}

// player runs one script.
type player struct {
	s     *sim
	t     *testing.T
	out   bytes.Buffer
	lans  map[string]*simLAN
	trace bool
	shown map[*simPort]string // role and state printed last
}

// playScript runs a script to its end, reports failed checks, and returns the
// transcript.
func playScript(t *testing.T, name string, src []byte) []byte {
	t.Helper()
	p := &player{s: newSim(0), t: t, lans: map[string]*simLAN{}, shown: map[*simPort]string{}}
	p.s.onEvent = p.print
	lines := bufio.NewScanner(bytes.NewReader(src))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), " \t")
		fmt.Fprintf(&p.out, "%s\n", line)
		code, _, _ := strings.Cut(line, "#")
		words := strings.Fields(code)
		if len(words) == 0 {
			continue
		}
		if err := p.do(words[0], words[1:]); err != nil {
			t.Errorf("%s:%d: %s: %v", name, n, line, err)
		}
	}
	p.s.checkLoop()
	for _, l := range p.s.loops {
		t.Errorf("%s: frames could go round from %v to %v", name, l.from, l.to)
	}
	for _, br := range p.s.bridges {
		if br.b.unsettled != 0 {
			t.Errorf("%s: %v did not come to rest %d times", name, br, br.b.unsettled)
		}
	}
	return p.out.Bytes()
}

func (p *player) do(verb string, args []string) error {
	switch verb {
	case "bridge":
		return p.doBridge(args)
	case "run":
		d, err := parseDuration(args)
		if err == nil {
			p.begin()
			p.s.run(d)
		}
		return err
	case "until":
		return p.doUntil(args)
	case "check":
		return p.check(args)
	case "flushed":
		return p.doFlushed(args)
	case "forget":
		p.forget()
		return nil
	case "show":
		p.show()
		return nil
	case "trace":
		p.trace = len(args) == 1 && args[0] == "on"
		return nil
	case "cut", "restore", "mute", "unmute", "delay":
		return p.doLAN(verb, args)
	case "kill", "start", "set":
		return p.doBridgeVerb(verb, args)
	case "plug", "port", "mcheck", "recover", "inject", "send", "stat":
		return p.doPortVerb(verb, args)
	}
	return fmt.Errorf("unknown verb %q", verb)
}

// begin starts the ports that were written down but not yet attached: a network
// is built whole before its first BPDU.
func (p *player) begin() {
	for _, l := range p.s.lans {
		seen := map[*simBridge]bool{}
		shared := len(l.ports) > 2
		for _, q := range l.ports {
			shared = shared || seen[q.br]
			seen[q.br] = true
		}
		for _, q := range l.ports {
			if q.cfg.HalfDuplex != shared {
				q.cfg.HalfDuplex = shared
				if q.begun {
					q.apply()
				}
			}
		}
	}
	for _, br := range p.s.bridges {
		for _, q := range br.ports {
			if !q.begun {
				q.begun = true
				q.apply()
			}
		}
	}
}

func (p *player) doBridge(args []string) error {
	eq := slices.Index(args, "=")
	if eq < 2 {
		return errors.New("want NAME ADDRESS[^PRIORITY] [KEY=VALUE]... = PORT...")
	}
	id, err := parseID(args[1])
	if err != nil {
		return err
	}
	cfg := DefaultConfig(id)
	if err := setKeys(&cfg, args[2:eq]); err != nil {
		return err
	}
	// Seconds pass at a different time in each bridge.
	br := p.s.addBridge(args[0], cfg, time.Duration(len(p.s.bridges)*70)*time.Millisecond)
	for _, w := range args[eq+1:] {
		spec, options, _ := strings.Cut(w, "/")
		cfg := DefaultPort()
		spec, prio, hasPrio := strings.Cut(spec, "^")
		spec, cost, hasCost := strings.Cut(spec, ":")
		if hasPrio {
			options += "/prio=" + prio
		}
		if hasCost {
			options += "/cost=" + cost
		}
		if err := setOptions(&cfg, strings.FieldsFunc(options, func(r rune) bool { return r == '/' })); err != nil {
			return err
		}
		br.addPort(p.lan(spec), cfg)
	}
	return nil
}

// lan finds or makes the LAN of this name; "-" is none.
func (p *player) lan(name string) *simLAN {
	if name == "-" {
		return nil
	}
	if p.lans[name] == nil {
		p.lans[name] = p.s.addLAN(name, time.Millisecond)
	}
	return p.lans[name]
}

func (p *player) bridge(name string) (*simBridge, error) {
	for _, br := range p.s.bridges {
		if br.name == name {
			return br, nil
		}
	}
	return nil, fmt.Errorf("no bridge %q", name)
}

// port finds NAME.PORT.
func (p *player) port(s string) (*simPort, error) {
	name, num, _ := strings.Cut(s, ".")
	br, err := p.bridge(name)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(num)
	if err != nil || n < 1 || n > len(br.ports) {
		return nil, fmt.Errorf("no port %q", s)
	}
	return br.ports[n-1], nil
}

func (p *player) doLAN(verb string, args []string) error {
	if len(args) == 0 || p.lans[args[0]] == nil {
		return errors.New("no such LAN")
	}
	l := p.lans[args[0]]
	switch verb {
	case "cut":
		l.setUp(p.s, false)
	case "restore":
		l.setUp(p.s, true)
	case "mute", "unmute":
		l.muted = verb == "mute"
		p.s.checkLoop()
	case "delay":
		d, err := parseDuration(args[1:])
		if err != nil {
			return err
		}
		l.delay = d
	}
	return nil
}

func (p *player) doBridgeVerb(verb string, args []string) error {
	if len(args) == 0 {
		return errors.New("which bridge?")
	}
	br, err := p.bridge(args[0])
	if err != nil {
		return err
	}
	switch verb {
	case "kill":
		br.kill()
	case "start":
		for _, q := range br.ports {
			delete(p.shown, q)
		}
		br.start()
	case "set":
		cfg := br.cfg
		if err := setKeys(&cfg, args[1:]); err != nil {
			return err
		}
		br.configure(cfg)
	}
	return nil
}

func (p *player) doPortVerb(verb string, args []string) error {
	if len(args) == 0 {
		return errors.New("which port?")
	}
	q, err := p.port(args[0])
	if err != nil {
		return err
	}
	args = args[1:]
	switch verb {
	case "plug":
		q.plug(p.lan(args[0]))
		p.begin()
	case "port":
		cfg := q.cfg
		if err := setOptions(&cfg, args); err != nil {
			return err
		}
		q.cfg = cfg
		q.apply()
	case "mcheck":
		err = q.br.b.Mcheck(q.num)
		q.br.drain()
	case "recover":
		err = q.br.b.Recover(q.num)
		q.br.drain()
	case "stat":
		return q.checkStats(args)
	case "inject", "send":
		return p.doReceive(verb, q, args)
	}
	return err
}

func (p *player) doReceive(verb string, q *simPort, args []string) error {
	want := ""
	if i := slices.Index(args, "error"); i >= 0 {
		want = strings.Join(args[i+1:], " ")
		args = args[:i]
	}
	var pdu []byte
	var err error
	if verb == "inject" {
		pdu, err = hex.DecodeString(strings.ReplaceAll(strings.Join(args, ""), ".", ""))
	} else {
		var m BPDU
		m, err = parseMessage(args)
		pdu = m.Append(nil)
	}
	if err != nil {
		return err
	}
	p.begin()
	err = q.br.b.Receive(q.num, pdu)
	q.br.drain()
	if err != nil {
		fmt.Fprintf(&p.out, "         %v\n", err)
	}
	switch {
	case err == nil && want != "":
		return fmt.Errorf("want an error that says %q", want)
	case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
		return fmt.Errorf("%w, want %q", err, want)
	}
	return nil
}
