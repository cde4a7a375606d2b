package output

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// yamlText returns v as a YAML document without the line that begins one; as the only
// item of a list where it is one of several.
func (v *value) yamlText(item bool) ([]byte, error) {
	node := v.yamlNode()
	if item {
		node = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{node}}
	}
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(node); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}

func (v *value) yamlNode() *yaml.Node {
	switch v.kind {
	case '{':
		node := &yaml.Node{Kind: yaml.MappingNode}
		for i, name := range v.names {
			node.Content = append(node.Content, yamlString(name), v.members[i].yamlNode())
		}
		if len(v.names) == 0 {
			node.Style = yaml.FlowStyle
		}
		return node
	case '[':
		node := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range v.members {
			node.Content = append(node.Content, item.yamlNode())
		}
		if len(v.members) == 0 {
			node.Style = yaml.FlowStyle
		}
		return node
	case '"':
		return yamlString(v.text)
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: v.text}
}

// yamlString returns a text, in quotes where it would be read as something else.
func yamlString(text string) *yaml.Node {
	node := new(yaml.Node)
	node.SetString(text)
	if text == "<<" { // As a name it would merge an object, and the encoder leaves it bare.
		node.Style = yaml.DoubleQuotedStyle
	}
	return node
}
