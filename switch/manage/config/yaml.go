package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	vswitch "github.com/kvswitch/kvswitch/switch"
	"github.com/kvswitch/kvswitch/switch/frame"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits on the shape of a file, far beyond any real one. The parser is
// recursive, and a file given by mistake must not cost a running switch its
// stack or its memory.
const (
	maxFile  = 1 << 20 // bytes: 4095 ports described at length
	maxLine  = 4 << 10 // bytes
	maxDepth = 64      // open brackets
)

// checkShape refuses a file that the parser had better not see.
func checkShape(name string, data []byte) error {
	if len(data) > maxFile {
		return fmt.Errorf("%s: the file is longer than %d bytes", name, maxFile)
	}
	if !utf8.Valid(data) {
		return fmt.Errorf("%s: the file is not UTF-8 text", name)
	}
	line, start, depth := 1, 0, 0
	for i, c := range data {
		switch c {
		case '\n':
			line, start = line+1, i+1
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		}
		if i-start >= maxLine {
			return fmt.Errorf("%s:%d: the line is longer than %d bytes", name, line, maxLine)
		}
		if depth > maxDepth {
			return fmt.Errorf("%s:%d:%d: more than %d brackets are open", name, line, i-start+1, maxDepth)
		}
	}
	return nil
}

// Parse reads a file into c: every word it holds is set, the others stay. name
// is put before the line and column that each error begins with. On error c is
// of no use.
//
// The file is one YAML mapping of plain words. It is walked here rather than
// decoded into a struct, so that every complaint has its line and column, and
// so that aliases, which can make a short file endless, have no meaning.
func (c *Config) Parse(kinds Kinds, name string, data []byte) error {
	if err := checkShape(name, data); err != nil {
		return err
	}
	return (&file{name: name, kinds: kinds, config: c}).parse(data)
}

func (f *file) parse(data []byte) error {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // as editors on Windows write it
	doc, err := parser.ParseBytes(data, 0)
	if err != nil {
		return f.syntax(err)
	}
	seen := false
	for _, d := range doc.Docs {
		if d.Body == nil || d.Body.Type() == ast.NullType || d.Body.Type() == ast.DirectiveType {
			continue
		}
		if seen {
			return f.at(d.Body, "a second document; want one")
		}
		seen = true
		if err := f.document(d.Body); err != nil {
			return err
		}
	}
	return nil
}

// file is a file on its way into a Config.
type file struct {
	name   string
	kinds  Kinds
	config *Config

	all      bool // go on after a mistake, to find the others
	mistakes []error
	places   map[string]*token.Token // of words, ports and entries, as place has them
}

// wrong is err, which ends the reading; or it is noted, and the reading goes on.
func (f *file) wrong(err error) error {
	if err == nil || !f.all {
		return err
	}
	f.mistakes = append(f.mistakes, err)
	return nil
}

// place notes where the file says something.
func (f *file) place(kind, name string, n ast.Node) {
	if f.all {
		f.places[kind+" "+name] = n.GetToken()
	}
}

// at makes an error about the place of n.
func (f *file) at(n ast.Node, format string, args ...any) error {
	return f.atToken(n.GetToken(), fmt.Errorf(format, args...))
}

func (f *file) atToken(t *token.Token, err error) error {
	if t == nil || t.Position == nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return fmt.Errorf("%s:%d:%d: %w", f.name, t.Position.Line, t.Position.Column, err)
}

// syntax is a parser's error as one line.
func (f *file) syntax(err error) error {
	var e yaml.Error
	if !errors.As(err, &e) {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return fmt.Errorf("%s: %s", f.name, line)
	}
	return f.atToken(e.GetToken(), errors.New(e.GetMessage()))
}

// pair is one key of a mapping and its value.
type pair struct {
	key   string
	node  ast.Node // the key's place
	value ast.Node
}

// mapping lists the pairs of n, which must be a mapping with plain keys.
func (f *file) mapping(n ast.Node, what string) ([]pair, error) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		return nil, f.at(n, "%s must be keys with values, not %s", what, describe(n))
	}
	pairs := make([]pair, 0, len(values))
	for _, v := range values {
		key, err := f.scalar(v.Key)
		if err != nil {
			return nil, err
		}
		for _, p := range pairs {
			if p.key == key {
				return nil, f.at(v.Key, "%s is given twice", key)
			}
		}
		pairs = append(pairs, pair{key, v.Key, v.Value})
	}
	return pairs, nil
}

// scalar is the text of n as it was written.
func (f *file) scalar(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case *ast.LiteralNode: // a block, folded or not
		return strings.TrimSpace(n.Value.Value), nil
	case *ast.TagNode:
		if plainTags[n.Start.Value] {
			return f.scalar(n.Value)
		}
	case *ast.NullNode:
		return "", f.at(n, "the value is missing")
	}
	return "", f.at(n, "want one word, not %s", describe(n))
}

// plainTags are those of YAML's core schema that a word may have: what a word means
// goes by its key.
var plainTags = map[string]bool{"!!str": true, "!!int": true, "!!bool": true, "!!float": true}

// joined is the text of a value that may be a list of words, which a SPEC has with
// plus signs between them.
func (f *file) joined(n ast.Node) (string, error) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		return f.scalar(n)
	}
	var words []string
	for _, v := range list.Values {
		word, err := f.scalar(v)
		if err != nil {
			return "", err
		}
		words = append(words, word)
	}
	return strings.Join(words, "+"), nil
}

// list is the elements of n, which must be a list, or one word that is a list of
// itself; nothing is an empty list.
func (f *file) list(n ast.Node) ([]ast.Node, error) {
	switch n := n.(type) {
	case *ast.SequenceNode:
		return n.Values, nil
	case *ast.NullNode:
		return nil, nil
	case *ast.StringNode:
		return []ast.Node{n}, nil
	}
	return nil, f.at(n, "want a list, not %s", describe(n))
}

// describe names a node in an error.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AliasNode, *ast.AnchorNode, *ast.MergeKeyNode:
		return "an alias or anchor"
	case *ast.TagNode:
		return "a tag"
	case *ast.LiteralNode:
		return "a block of text"
	}
	return "this"
}

func (f *file) document(n ast.Node) error {
	pairs, err := f.mapping(n, "a configuration")
	if err != nil {
		return err
	}
	for _, p := range pairs {
		switch p.key {
		case "uplinks":
			err = f.ports(p.value, true)
		case "ports":
			err = f.ports(p.value, false)
		case "fdb":
			err = f.static(p.value)
		default:
			err = f.word(p)
		}
		if err := f.wrong(err); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) word(p pair) error {
	if p.key == "vlan_filtering" { // as ip-link(8) has it
		p.key = "vlan-filtering"
	}
	if findScalar(p.key) == nil {
		return f.at(p.node, "unknown key %q; known: %s", p.key, strings.Join(knownKeys(), " "))
	}
	f.place("word", p.key, p.value)
	value, err := f.scalar(p.value)
	if err == nil {
		if err = f.config.Set(p.key, value); err != nil {
			err = f.atToken(p.value.GetToken(), err)
		}
	}
	return err
}

// ports reads a list of ports. Uplinks need not say their kind.
func (f *file) ports(n ast.Node, uplink bool) error {
	nodes, err := f.list(n)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		spec, err := f.port(n, uplink)
		if err == nil {
			if err = f.config.AddPort(Port{Spec: spec, Uplink: uplink}); err != nil {
				err = f.atToken(n.GetToken(), err)
			} else {
				f.place("port", spec.Name, n)
			}
		}
		if err := f.wrong(err); err != nil {
			return err
		}
	}
	return nil
}

// port reads a port: a SPEC, or a mapping with the keys kind, name, and those
// of a SPEC.
func (f *file) port(n ast.Node, uplink bool) (Spec, error) {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		text, err := f.scalar(n)
		if err != nil {
			return Spec{}, err
		}
		parse := f.kinds.ParseSpec
		if uplink {
			parse = f.kinds.ParseUplink
		}
		spec, err := parse(text)
		if err != nil {
			return Spec{}, f.atToken(n.GetToken(), err)
		}
		return spec, nil
	}
	pairs, err := f.mapping(n, "a port")
	if err != nil {
		return Spec{}, err
	}
	var kind, name string
	if uplink {
		kind = UplinkKind
	}
	var settings []pair
	var values []KeyValue
	for _, p := range pairs {
		value, err := f.joined(p.value)
		if err != nil {
			return Spec{}, err
		}
		switch {
		case p.key == "name":
			name = value
		case p.key == "kind":
			kind = value
		default:
			settings = append(settings, p)
			values = append(values, KeyValue{Key: p.key, Value: value})
		}
	}
	if kind == "" {
		return Spec{}, f.at(n, "the port's kind is missing; want one of %s", f.kinds.names())
	}
	// Each word by itself first, so that the error has the word's place.
	for i, p := range settings {
		if _, err := f.kinds.spec(kind, "x", values[i:i+1]); err != nil {
			return Spec{}, f.atToken(p.node.GetToken(), err)
		}
	}
	spec, err := f.kinds.spec(kind, name, values)
	if err != nil {
		return Spec{}, f.atToken(pairs[0].node.GetToken(), err)
	}
	return spec, nil
}

// static reads the list of static forwarding entries.
func (f *file) static(n ast.Node) error {
	nodes, err := f.list(n)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		e, err := f.entry(n)
		if err == nil {
			if err = f.config.AddStatic(e); err != nil {
				err = f.atToken(n.GetToken(), err)
			} else {
				f.place("entry", e.String(), n)
			}
		}
		if err := f.wrong(err); err != nil {
			return err
		}
	}
	return nil
}

// entry reads one of them.
func (f *file) entry(n ast.Node) (Static, error) {
	e := Static{VLAN: vswitch.DefaultVID}
	pairs, err := f.mapping(n, "an fdb entry")
	if err != nil {
		return e, err
	}
	for _, p := range pairs {
		value, err := f.scalar(p.value)
		if err != nil {
			return e, err
		}
		switch p.key {
		case "mac":
			e.MAC, err = frame.ParseMAC(value)
		case "vlan":
			e.VLAN, err = ParseVID(value)
		case "port":
			e.Port, err = value, CheckName(value)
		default:
			return e, f.at(p.node, "unknown key %q; known: mac vlan port", p.key)
		}
		if err != nil {
			return e, f.atToken(p.value.GetToken(), err)
		}
	}
	return e, nil
}
