package stp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The part of the script player that reads words.

// setKeys reads KEY=VALUE of a bridge.
func setKeys(cfg *Config, args []string) error {
	for _, a := range args {
		key, value, _ := strings.Cut(a, "=")
		if key == "mode" {
			if err := cfg.Mode.UnmarshalText([]byte(value)); err != nil {
				return err
			}
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		switch key {
		case "prio":
			cfg.ID.Priority = uint16(n)
		case "hello":
			cfg.Hello = n
		case "max-age":
			cfg.MaxAge = n
		case "delay":
			cfg.ForwardDelay = n
		case "hold":
			cfg.TxHold = n
		default:
			return fmt.Errorf("unknown key %q", key)
		}
	}
	return cfg.Validate()
}

// setOptions reads the options of a port.
func setOptions(cfg *PortConfig, options []string) error {
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		name, no := strings.CutPrefix(key, "no-")
		var n uint64
		if value != "" {
			var err error
			if n, err = strconv.ParseUint(value, 10, 32); err != nil {
				return err
			}
		}
		switch name {
		case "cost":
			cfg.Cost = uint32(n)
		case "prio":
			cfg.Priority = uint8(n)
		case "recover":
			cfg.RecoverAfter = uint32(n)
		case "edge":
			cfg.AdminEdge = !no
		case "noauto":
			cfg.AutoEdge = no
		case "shared":
			cfg.PointToPoint = P2POff
		case "p2p":
			cfg.PointToPoint = P2POn
		case "bpdu-guard":
			cfg.BPDUGuard = !no
		case "filter":
			cfg.BPDUFilter = !no
		case "root-guard":
			cfg.RootGuard = !no
		case "tcn-guard":
			cfg.TCNGuard = !no
		case "loop-guard":
			cfg.LoopGuard = !no
		case "down":
			cfg.Enabled = no
		default:
			return fmt.Errorf("unknown option %q", o)
		}
	}
	return cfg.Validate()
}

// parseDuration reads seconds, or a Go duration.
func parseDuration(args []string) (time.Duration, error) {
	if len(args) != 1 {
		return 0, errors.New("want one duration")
	}
	if n, err := strconv.Atoi(args[0]); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(args[0])
}

// parseID reads ADDRESS[^PRIORITY].
func parseID(s string) (BridgeID, error) {
	addr, prio, hasPrio := strings.Cut(s, "^")
	a, err := strconv.ParseUint(addr, 16, 32)
	if err != nil {
		return BridgeID{}, err
	}
	id := BridgeID{0x8000, [6]byte{2, 0, byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}}
	if hasPrio {
		n, err := strconv.ParseUint(prio, 0, 16)
		if err != nil {
			return BridgeID{}, err
		}
		id.Priority = uint16(n)
	}
	return id, nil
}

// parseMessage reads what `send` sends.
func parseMessage(args []string) (BPDU, error) {
	id := BridgeID{0x8000, [6]byte{2, 0, 0, 0, 0, 0xee}}
	m := BPDU{Root: id, Bridge: id, Port: 0x8001, MaxAge: 20 * second, HelloTime: 2 * second, ForwardDelay: 15 * second}
	if len(args) == 0 {
		return m, errors.New("want config, rst or tcn")
	}
	role := RoleDesignated
	switch args[0] {
	case "tcn":
		m.Type = TypeTCN
	case "rst":
		m.Type, m.Version = TypeRST, 2
	}
	for _, a := range args[1:] {
		key, value, _ := strings.Cut(a, "=")
		var n uint64
		var err error
		switch key {
		case "root":
			m.Root, err = parseID(value)
		case "bridge":
			m.Bridge, err = parseID(value)
		case "role":
			err = role.UnmarshalText([]byte(value))
		case "flags":
			for _, f := range strings.Split(value, "+") {
				flag, ok := map[string]Flags{"tc": FlagTopologyChange, "proposal": FlagProposal, "learning": FlagLearning,
					"forwarding": FlagForwarding, "agreement": FlagAgreement, "tcack": FlagTCAck}[f]
				if !ok {
					err = fmt.Errorf("unknown flag %q", f)
				}
				m.Flags |= flag
			}
		default:
			if n, err = strconv.ParseUint(value, 0, 32); err != nil {
				return m, err
			}
			switch key {
			case "cost":
				m.RootPathCost = uint32(n)
			case "port":
				m.Port = PortID(n)
			case "age":
				m.MessageAge = uint16(n) * second
			case "max":
				m.MaxAge = uint16(n) * second
			case "hello":
				m.HelloTime = uint16(n) * second
			case "delay":
				m.ForwardDelay = uint16(n) * second
			case "version":
				m.Version = uint8(n)
			default:
				err = fmt.Errorf("unknown key %q", key)
			}
		}
		if err != nil {
			return m, err
		}
	}
	if m.Type == TypeRST {
		m.Flags |= roleFlags(role)
	}
	return m, nil
}
