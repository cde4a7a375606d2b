package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// fileValue is the value of a setting in the configuration file: a text or a
// list of texts.
type fileValue struct {
	text string
	list []string
	// form tells what the YAML was.
	form form
	// node is that YAML, of a setting that has fields of its own.
	node *yaml.Node
}

type form int

const (
	formText form = iota
	formBool
	formList
)

// as returns the value as a flag of this kind takes it.
func (v fileValue) as(kind reflect.Kind) (any, error) {
	switch {
	case kind == reflect.Slice:
		if v.form != formList {
			return nil, errors.New("must be a list")
		}
		list := make([]any, len(v.list))
		for i, text := range v.list {
			list[i] = text
		}
		return list, nil
	case v.form == formList:
		return nil, errors.New("must be one value, not a list")
	case kind == reflect.Bool && v.form != formBool:
		return nil, errors.New("must be true or false")
	}
	return v.text, nil
}

// readFile reads a configuration file of settings with these names.
func readFile(path string, known []string) (map[string]fileValue, error) {
	root, err := readYAML(path)
	if err != nil || root == nil {
		return nil, err
	}
	if root.Kind != yaml.MappingNode {
		return nil, errors.New("must be settings such as rest_addr: 127.0.0.1:8080")
	}
	return readSettings(root, known)
}

// readYAML returns the document of a YAML file, nil if it is empty.
func readYAML(path string) (*yaml.Node, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		var pathErr *os.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, notYAML(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("must be one YAML document")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	return root, nil
}

// readSettings reads a mapping of settings with these names. It takes nothing
// that it does not know: a mistyped setting would else be one that is silently
// at its default.
func readSettings(root *yaml.Node, known []string) (map[string]fileValue, error) {
	values := map[string]fileValue{}
	all := flat(root.Content, known)
	for i := 0; i < len(all); i += 2 {
		name, node := all[i], all[i+1]
		if !slices.Contains(known, name.Value) {
			return nil, unknownSetting(name, known)
		}
		if _, ok := values[name.Value]; ok {
			return nil, fmt.Errorf("setting %q stands on line %d a second time", apikey.Excerpt(name.Value), name.Line)
		}
		if name.Value == oidcSetting {
			if node = resolved(node); !isNull(node) {
				values[name.Value] = fileValue{node: node}
			}
			continue
		}
		value, set, err := readValue(node, itemReaders[name.Value])
		if err != nil {
			return nil, fmt.Errorf("%s %w", name.Value, err)
		}
		if set {
			values[name.Value] = value
		}
	}
	for _, name := range withoutFlag {
		if values[name].form == formList {
			return nil, fmt.Errorf("%s must be one value, not a list", name)
		}
	}
	return values, nil
}

// flat returns names and values with those of a mapping such as
//
//	webhooks: {max: 10}
//
// in its place, as webhooks_max, where that is what the settings are named like.
func flat(content []*yaml.Node, known []string) (all []*yaml.Node) {
	for i := 0; i < len(content); i += 2 {
		name, node := content[i], content[i+1]
		prefix := name.Value + "_"
		isGroup := !slices.Contains(known, name.Value) && slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, prefix) })
		if !isGroup || node.Kind != yaml.MappingNode {
			all = append(all, name, node)
			continue
		}
		for j := 0; j < len(node.Content); j += 2 {
			member := *node.Content[j]
			member.Value = prefix + member.Value
			all = append(all, &member, node.Content[j+1])
		}
	}
	return all
}

func unknownSetting(name *yaml.Node, known []string) error {
	hint := ""
	if meant, ok := nearest(name.Value, known); ok {
		hint = fmt.Sprintf("; did you mean %q?", meant)
	}
	return fmt.Errorf("unknown setting %q on line %d%s", apikey.Excerpt(name.Value), name.Line, hint)
}

// itemReaders are how the items of settings are read that may be mappings: each as the
// text that it can be written as.
var itemReaders = map[string]func(*yaml.Node) (string, error){
	"key_formats": func(item *yaml.Node) (string, error) {
		return itemText(item, []itemKey{{"name", "="}, {"prefix", ":"}, {"mode", ""}})
	},
	"gate_rules": ruleText,
}

// itemKey is a key of an item, with what follows its value where the item is written as a
// text.

type itemKey struct{ name, separator string }

// itemText returns the text of an item of a list that is a mapping of keys.
func itemText(item *yaml.Node, keys []itemKey) (string, error) {
	names := make([]string, len(keys))
	values := make(map[string]string)
	for i, key := range keys {
		names[i] = key.name
	}
	want := strings.Join(names, ", ")
	for i := 0; i < len(item.Content); i += 2 {
		name, value := item.Content[i].Value, item.Content[i+1]
		if _, twice := values[name]; twice || !slices.Contains(names, name) || value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
			return "", fmt.Errorf("must be a list of mappings of %s, each once and a text; not so on line %d", want, item.Content[i].Line)
		}
		if strings.ContainsAny(value.Value, "=:,") {
			return "", fmt.Errorf("must not hold = : or , in its texts, as on line %d", value.Line)
		}
		values[name] = value.Value
	}
	if len(values) != len(keys) {
		return "", fmt.Errorf("must be a list of mappings of %s, all of them; one is missing on line %d", want, item.Line)
	}
	var text strings.Builder
	for _, key := range keys {
		text.WriteString(values[key.name] + key.separator)
	}
	return text.String(), nil
}

// ruleText returns the text of a rule of gate_rules that is a mapping of methods, path,
// scopes, organization and cost.
func ruleText(item *yaml.Node) (string, error) {
	const want = "must be a list of texts, or of mappings of methods, path, scopes, organization and cost, each once; not so on line %d"
	values := make(map[string][]string)
	for i := 0; i < len(item.Content); i += 2 {
		name, value := item.Content[i].Value, item.Content[i+1]
		if _, twice := values[name]; twice || !slices.Contains([]string{"methods", "path", "scopes", "organization", "cost"}, name) {
			return "", fmt.Errorf(want, item.Content[i].Line)
		}
		read, set, err := readValue(value, nil)
		if err != nil || !set || read.form == formList && name != "methods" && name != "scopes" {
			return "", fmt.Errorf(want, value.Line)
		}
		if read.form != formList {
			read.list = []string{read.text}
		}
		if slices.ContainsFunc(read.list, func(text string) bool { return text == "" || strings.ContainsAny(text, " &,") }) {
			return "", fmt.Errorf("must not hold spaces, & or , in its texts, as on line %d", value.Line)
		}
		values[name] = read.list
	}
	if values["path"] == nil {
		return "", fmt.Errorf("needs a path on line %d", item.Line)
	}
	methods := "ANY"
	if values["methods"] != nil {
		methods = strings.Join(values["methods"], "|")
	}
	needs := url.Values{}
	for name, parameter := range map[string]string{"scopes": "scope", "organization": "organization", "cost": "cost"} {
		for _, value := range values[name] {
			needs.Add(parameter, value)
		}
	}
	return strings.TrimSpace(methods + " " + values["path"][0] + " " + needs.Encode()), nil
}

// readValue reads one value, which may be a list of mappings that reader reads, if it is
// not nil. A null or empty one leaves its setting unset.
func readValue(node *yaml.Node, reader func(*yaml.Node) (string, error)) (v fileValue, set bool, err error) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Tag == "!!bool" {
			v.form = formBool
		}
		v.text = node.Value
		return v, node.Tag != "!!null" && node.Value != "", nil
	case yaml.SequenceNode:
		v.form = formList
		for _, item := range node.Content {
			if item.Kind == yaml.MappingNode && reader != nil {
				text, err := reader(item)
				if err != nil {
					return v, false, err
				}
				v.list = append(v.list, text)
				continue
			}
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return v, false, errors.New("must be a list of texts")
			}
			v.list = append(v.list, item.Value)
		}
		return v, true, nil
	default:
		return v, false, errors.New("must be one value or a list")
	}
}

// quotedInYAML matches what an error of the parser repeats of the file.
var quotedInYAML = regexp.MustCompile("(?s)'.*'|\".*\"|`.*`")

// notYAML keeps of a YAML error what a person can act on.
func notYAML(err error) error {
	text := quotedInYAML.ReplaceAllStringFunc(strings.TrimPrefix(err.Error(), "yaml: "), apikey.Excerpt)
	return errors.New("not YAML: " + text)
}
