package openapi

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// comments are the comments of the protos, by the full name of what they stand above.
type comments map[protoreflect.FullName]string

// readComments reads the comments of an image that buf has built.
func readComments(image []byte) (comments, error) {
	set := new(descriptorpb.FileDescriptorSet)
	// Options of the files stay unknown fields here; nobody asks for them.
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(image, set); err != nil {
		return nil, fmt.Errorf("read the image of the protos: %w", err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("read the image of the protos: %w", err)
	}
	all := make(comments)
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(file.Path(), "apikeys/") {
			all.addFile(file)
		}
		return true
	})
	if len(all) == 0 {
		return nil, fmt.Errorf("the image of the protos has no comments")
	}
	return all, nil
}

func (c comments) addFile(file protoreflect.FileDescriptor) {
	add := func(d protoreflect.Descriptor) {
		if text := paragraphs(file.SourceLocations().ByDescriptor(d).LeadingComments); text != "" {
			c[d.FullName()] = text
		}
	}
	for i := range file.Services().Len() {
		service := file.Services().Get(i)
		add(service)
		for j := range service.Methods().Len() {
			add(service.Methods().Get(j))
		}
	}
	for i := range file.Enums().Len() {
		enum := file.Enums().Get(i)
		add(enum)
		for j := range enum.Values().Len() {
			add(enum.Values().Get(j))
		}
	}
	for i := range file.Messages().Len() {
		message := file.Messages().Get(i)
		add(message)
		for j := range message.Fields().Len() {
			add(message.Fields().Get(j))
		}
	}
}

// paragraphs is a comment without the line ends inside its paragraphs. What is
// indented keeps its lines.
func paragraphs(comment string) string {
	var out strings.Builder
	for line := range strings.Lines(strings.TrimSpace(comment)) {
		text := strings.TrimRight(strings.TrimPrefix(line, " "), "\n ")
		kept := strings.HasPrefix(text, " ") || strings.HasPrefix(text, "* ") || strings.HasPrefix(text, "- ")
		switch before := out.String(); {
		case before == "":
		case text == "":
			out.WriteString("\n")
		case kept || strings.HasSuffix(before, "\n"):
			out.WriteString("\n")
		default:
			out.WriteString(" ")
		}
		out.WriteString(text)
	}
	return out.String()
}

// split returns the first sentence of a text and the rest.
func split(text string) (first, rest string) {
	for i := range len(text) {
		if text[i] == '.' && (i+1 == len(text) || text[i+1] == ' ' || text[i+1] == '\n') {
			return text[:i+1], strings.TrimSpace(text[i+1:])
		}
	}
	return text, ""
}
