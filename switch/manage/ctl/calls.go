package ctl

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"
	"github.com/kvswitch/kvswitch/switch/manage/config"
	"github.com/kvswitch/kvswitch/switch/manage/qemu"
)

// One function per route; the paths are in the package comment.

func (s *Server) getSwitch(*http.Request) (any, error) { return s.status(), nil }

// status is the switch's, with its ports' settings in words.
func (s *Server) status() vswitch.Status {
	st := s.sw.Status()
	for _, p := range withHost(&st) {
		config.FillSettings(p)
	}
	return st
}

func (s *Server) portStatus(name string) (vswitch.PortStatus, error) {
	p, err := s.sw.PortStatus(name)
	config.FillSettings(&p)
	return p, err
}

// words is a JSON object of plain values, each as text: {"vlan":10} means what
// {"vlan":"10"} means.
type words map[string]word

type word string

func (w *word) UnmarshalJSON(b []byte) error {
	switch c := b[0]; {
	case c == '"':
		return json.Unmarshal(b, (*string)(w))
	case c == '{', c == '[', c == 'n':
		return fmt.Errorf("%s is not a plain value", b)
	default: // a number or a boolean, as written
		*w = word(b)
		return nil
	}
}

// readWords reads a body of words, sorted by key so that what fails does not
// depend on chance.
func readWords(r *http.Request) ([]config.KeyValue, error) {
	var ws words
	if err := read(r, &ws); err != nil {
		return nil, err
	}
	list := make([]config.KeyValue, 0, len(ws))
	for k, v := range ws {
		list = append(list, config.KeyValue{Key: k, Value: string(v)})
	}
	slices.SortFunc(list, func(a, b config.KeyValue) int { return strings.Compare(a.Key, b.Key) })
	if len(list) == 0 {
		return nil, badRequest("the body holds no key")
	}
	return list, nil
}

func (s *Server) setSwitch(r *http.Request) (any, error) {
	list, err := readWords(r)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 || list[0].Key != "ageing" {
		return nil, badRequest("unknown key %q; known: ageing", list[len(list)-1].Key)
	}
	d, err := config.ParseAgeing(list[0].Value)
	if err != nil {
		return nil, badRequest("set ageing: %w", err)
	}
	return nil, s.sw.SetAgeing(d)
}

func (s *Server) getPorts(*http.Request) (any, error) {
	st := s.status()
	return withHost(&st), nil
}

func (s *Server) addPort(r *http.Request) (any, error) {
	var p NewPort
	if err := read(r, &p); err != nil {
		return nil, err
	}
	spec, err := s.daemon.Kinds().ParseSpec(p.Spec)
	if err != nil {
		return nil, err
	}
	if p.Guest {
		err = s.daemon.AddGuestPort(spec)
	} else {
		err = s.daemon.AddPort(config.Port{Spec: spec, Uplink: p.Uplink})
	}
	if err != nil {
		return nil, err
	}
	return s.portStatus(spec.Name)
}

func (s *Server) getPort(r *http.Request) (any, error) {
	return s.portStatus(r.PathValue("name"))
}

func (s *Server) setPort(r *http.Request) (any, error) {
	list, err := readWords(r)
	if err != nil {
		return nil, err
	}
	return nil, s.changePort(r.PathValue("name"), func(c *vswitch.PortConfig) error { return config.SetPort(c, list...) })
}

// changePort replaces a port's configuration by a changed copy of it.
func (s *Server) changePort(name string, change func(*vswitch.PortConfig) error) error {
	s.change.Lock()
	defer s.change.Unlock()
	cfg, err := s.sw.PortConfig(name)
	if err != nil {
		return err
	}
	if err := change(&cfg); err != nil {
		return err
	}
	return s.sw.SetPort(name, cfg)
}

func (s *Server) delPort(r *http.Request) (any, error) {
	name := r.PathValue("name")
	if r.URL.Query().Get("guest") == "true" {
		return nil, s.daemon.DelGuestPort(name)
	}
	return nil, config.Hint(s.sw.RemovePort(name))
}

// vlanOf is the query's VLAN, 0 if there is none.
func vlanOf(r *http.Request) (uint16, error) {
	v := r.URL.Query().Get("vlan")
	if v == "" {
		return 0, nil
	}
	vid, err := config.ParseVID(v)
	if err != nil {
		return 0, badRequest("%w", err)
	}
	return vid, nil
}

func (s *Server) addFDB(r *http.Request) (any, error) {
	var e NewEntry
	if err := read(r, &e); err != nil {
		return nil, err
	}
	return nil, config.Hint(s.sw.AddFDB(e.MAC, e.VLAN, e.Port, e.Static))
}

func (s *Server) flushFDB(r *http.Request) (any, error) {
	vlan, err := vlanOf(r)
	if err != nil {
		return nil, err
	}
	n, err := s.sw.FlushFDB(r.URL.Query().Get("port"), vlan)
	return flushed{n}, err
}

func (s *Server) delFDB(r *http.Request) (any, error) {
	mac, err := frame.ParseMAC(r.PathValue("mac"))
	if err != nil {
		return nil, badRequest("%w", err)
	}
	vlan, err := vlanOf(r)
	if err != nil {
		return nil, err
	}
	return nil, config.Hint(s.sw.DelFDB(mac, vlan))
}

func (s *Server) getVLANs(*http.Request) (any, error) {
	st := s.sw.Status()
	list := []PortVLANs{}
	for _, p := range withHost(&st) {
		list = append(list, PortVLANs{p.Name, p.VLAN})
	}
	return list, nil
}

func (s *Server) addVLANs(r *http.Request) (any, error) {
	var v NewVLANs
	if err := read(r, &v); err != nil {
		return nil, err
	}
	vids, err := v.Set()
	if err != nil {
		return nil, badRequest("%w", err)
	}
	return nil, s.changePort(v.Port, func(c *vswitch.PortConfig) error {
		for vid := range vids.All {
			c.VLAN.AddVID(vid, v.PVID, v.Untagged)
		}
		return nil
	})
}

func (s *Server) delVLANs(r *http.Request) (any, error) {
	q := r.URL.Query()
	vids, err := config.ParseVIDs(q.Get("vids"))
	if err != nil {
		return nil, badRequest("%w", err)
	}
	port := q.Get("port")
	return nil, s.changePort(port, func(c *vswitch.PortConfig) error {
		for vid := range vids.All {
			if !c.VLAN.Member.Has(vid) {
				return fmt.Errorf("delete VLAN %d from %s: the port is not in it", vid, port)
			}
			c.VLAN.DelVID(vid)
		}
		return nil
	})
}

func (s *Server) getSTP(*http.Request) (any, error) { return s.sw.STPStatus(), nil }

func (s *Server) setSTP(r *http.Request) (any, error) {
	list, err := readWords(r)
	if err != nil {
		return nil, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	cfg := s.sw.STP()
	for _, w := range list {
		if err := config.SetSTP(&cfg, w.Key, w.Value); err != nil {
			return nil, badRequest("%w", err)
		}
	}
	return nil, s.sw.SetSTP(cfg)
}

func (s *Server) recoverPort(r *http.Request) (any, error) {
	return nil, s.sw.RecoverPort(r.PathValue("name"))
}

func (s *Server) mcheck(r *http.Request) (any, error) {
	return nil, s.sw.Mcheck(r.PathValue("name"))
}

func (s *Server) getStats(*http.Request) (any, error) {
	st := s.sw.Status()
	list := []PortStats{}
	for _, p := range withHost(&st) {
		list = append(list, stats(p))
	}
	return list, nil
}

func (s *Server) getConfig(w http.ResponseWriter, _ *http.Request) {
	body, err := s.daemon.Config()
	if err != nil {
		fail(w, status(err), err)
		return
	}
	s.deliver(w, "application/yaml", body)
}

func (s *Server) reload(*http.Request) (any, error) {
	changes, err := s.daemon.Reload()
	if err != nil {
		return nil, err
	}
	return reloaded{append([]string{}, changes...)}, nil
}

func (s *Server) getVMs(*http.Request) (any, error) {
	var ports []string
	st := s.sw.Status()
	for _, p := range st.Ports {
		if p.Kind == config.NetdevKind || p.Kind == config.TapKind {
			ports = append(ports, p.Name)
		}
	}
	return qemu.AddHeld(append([]qemu.GuestNIC{}, s.guests.List()...), ports, func(port string) []string {
		macs := []string{}
		entries, _ := s.sw.FDB(port, 0) // a port that has just gone has none
		for _, e := range entries {
			if mac := e.MAC.String(); !slices.Contains(macs, mac) {
				macs = append(macs, mac)
			}
		}
		return macs
	}), nil
}

func (s *Server) attachVM(r *http.Request) (any, error) {
	var n NewNIC
	if err := read(r, &n); err != nil {
		return nil, err
	}
	o, err := n.Options(s.daemon.Kinds())
	if err != nil {
		return nil, err
	}
	nic, err := s.guests.Attach(r.Context(), o)
	if err != nil {
		return nil, err
	}
	mac := nic.MAC
	s.sw.Note(vswitch.Event{Event: vswitch.EventVMAttach, Port: nic.Port, MAC: &mac})
	return nic, nil
}

func (s *Server) detachVM(r *http.Request) (any, error) {
	q := r.URL.Query()
	if err := s.guests.Detach(r.Context(), q.Get("qmp"), q.Get("id")); err != nil {
		return nil, err
	}
	s.sw.Note(vswitch.Event{Event: vswitch.EventVMDetach, Reason: q.Get("id") + " of " + q.Get("qmp")})
	return nil, nil
}
