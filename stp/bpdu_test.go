package stp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestParseBPDUReadsEveryField(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		want      BPDU
		text      string
	}{
		{"configuration", "0000" + "00" + "00" + "81" + "8001001122334455" + "00004e20" + "9002aabbccddeeff" + "8003" + "0180" + "1400" + "0200" + "0f80",
			BPDU{0, TypeConfig, FlagTopologyChange | FlagTCAck, BridgeID{0x8001, [6]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55}}, 20000,
				BridgeID{0x9002, [6]byte{0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}}, 0x8003, 384, 20 * second, 2 * second, 15*second + 128},
			"Config root 8001.001122334455 cost 20000 bridge 9002.aabbccddeeff port 8003 age 1.5/20 hello 2 delay 15.5 tc tcack"},
		{"topology change notification", "0000" + "00" + "80", BPDU{Type: TypeTCN}, "TCN"},
		{"rapid", "0000" + "02" + "02" + "7a" + "0000000000000001" + "ffffffff" + "ffff000000000002" + "f001" + "0000" + "0600" + "0100" + "0400" + "00",
			BPDU{2, TypeRST, FlagProposal | FlagLearning | FlagForwarding | FlagAgreement | roleFlags(RoleRoot), BridgeID{0, [6]byte{5: 1}}, 1<<32 - 1,
				BridgeID{0xffff, [6]byte{5: 2}}, 0xf001, 0, 6 * second, second, 4 * second},
			"RST root root 0000.000000000001 cost 4294967295 bridge ffff.000000000002 port f001 age 0/6 hello 1 delay 4 learning forwarding proposal agreement"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := hex.DecodeString(c.hex)
			if err != nil {
				t.Fatal(err)
			}
			for _, trailer := range []string{"", "\x00\x00\x00"} {
				got, err := ParseBPDU(append(bytes.Clone(b), trailer...))
				if err != nil || got != c.want {
					t.Errorf("got %+v, %v\nwant %+v", got, err, c.want)
				}
			}
			if got := c.want.Append([]byte("x")); string(got) != "x"+string(b) {
				t.Errorf("encodes to\n%x, want\n%x", got[1:], b)
			}
			if got := c.want.String(); got != c.text {
				t.Errorf("got  %s\nwant %s", got, c.text)
			}
		})
	}
}

func TestParseBPDURefusesWhatIsNone(t *testing.T) {
	valid := rst(better, 0, better, 0x8001, 0).Append(nil)
	with := func(at int, v ...byte) []byte {
		b := bytes.Clone(valid)
		copy(b[at:], v)
		return b
	}
	old := config(better, 0, better, 0x8001, 0).Append(nil)
	aged := config(better, 0, better, 0x8001, 0)
	aged.MessageAge = aged.MaxAge
	for _, c := range []struct {
		name string
		pdu  []byte
		want error
	}{
		{"nothing", nil, ErrTooShort},
		{"three octets", valid[:3], ErrTooShort},
		{"protocol", with(0, 1), ErrProtocol},
		{"protocol, low octet", with(1, 1), ErrProtocol},
		{"type", with(3, 3), ErrType},
		{"RST of version 1", with(2, 1), ErrVersion},
		{"RST of version 3 is one of version 2", with(2, 3), nil},
		{"35 octets of RST", valid[:35], ErrTooShort},
		{"36 octets of RST", valid[:36], nil},
		{"34 octets of configuration", old[:34], ErrTooShort},
		{"35 octets of configuration", old[:35], nil},
		{"configuration as old as it may not be", aged.Append(nil), ErrMessageAge},
		{"four octets of TCN", []byte{0, 0, 0, 0x80}, nil},
	} {
		if _, err := ParseBPDU(c.pdu); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzParseBPDU(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0x80})
	f.Add(rst(better, 1, worse, 0x8001, FlagProposal).Append(nil))
	f.Add(config(better, 1, worse, 0x8001, FlagTCAck).Append(nil))
	f.Fuzz(func(t *testing.T, pdu []byte) {
		m, err := ParseBPDU(pdu)
		if err != nil {
			if m != (BPDU{}) {
				t.Errorf("an error, and %+v", m)
			}
			return
		}
		// What was read is written again as it was: all but the octets behind.
		again := m.Append(nil)
		want := pdu[:len(again)]
		if m.Type == TypeRST {
			want = append(bytes.Clone(want[:LenConfig]), 0) // version 1 length
		}
		if !bytes.Equal(again, want) {
			t.Errorf("read % x, wrote % x", want, again)
		}
		if m.String() == "" {
			t.Error("no words for it")
		}
	})
}

func TestIdentifiersAreReadAsTheyAreWritten(t *testing.T) {
	id := BridgeID{0x8000, [6]byte{0xee, 0xf7, 0x95, 0x49, 0xaf, 0xe7}}
	if got := id.String(); got != "8000.eef79549afe7" {
		t.Errorf("bridge id is written %s", got)
	}
	var back BridgeID
	if err := back.UnmarshalText([]byte(id.String())); err != nil || back != id {
		t.Errorf("read back as %v, %v", back, err)
	}
	for _, bad := range []string{"", "8000", "8000.eef79549afe", "8000:eef79549afe7", "zzzz.eef79549afe7", "8000.eef79549afzz", "8000.eef79549afe7 "} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is read as a bridge id", bad)
		}
	}
	if back != id {
		t.Errorf("a failed read left %v", back)
	}
	p := MakePortID(0x9f, 0xfabc)
	if p != 0x9abc || p.Priority() != 0x90 || p.Port() != 0xabc || p.String() != "9abc" {
		t.Errorf("port id %v: priority %d, port %d", p, p.Priority(), p.Port())
	}
	if err := p.UnmarshalText([]byte("8001")); err != nil || p != 0x8001 {
		t.Errorf("read back as %v, %v", p, err)
	}
	for _, bad := range []string{"", "801", "80011", "g001", "+801"} {
		if err := p.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is read as a port id", bad)
		}
	}
}
