package shell

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// A Page is a manual page.
type Page struct {
	// Name is the file's, such as apikeys-keys-create.1.
	Name string
	Text string
}

// Pages returns a manual page for the program and for each of its commands, in roff.
// version stands at the foot; examples returns what is told of a command by its path.
func Pages(app *kong.Application, version string, examples func(path string) string) (pages []Page) {
	var visit func(node *kong.Node, path []string)
	visit = func(node *kong.Node, path []string) {
		pages = append(pages, page(app, node, path, version, examples))
		for _, child := range node.Children {
			if !child.Hidden {
				visit(child, append(path[:len(path):len(path)], child.Name))
			}
		}
	}
	visit(app.Node, []string{app.Name})
	return pages
}

func page(app *kong.Application, node *kong.Node, path []string, version string, examples func(path string) string) Page {
	name := strings.Join(path, "-")
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" %s\n", quoted(strings.ToUpper(name)), quoted(app.Name+" "+version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", text(name), text(strings.TrimSuffix(node.Help, ".")))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", text(strings.Join(path, " ")))
	if len(node.Children) > 0 {
		b.WriteString(".I command\n")
	}
	b.WriteString("[flags]\n")
	for _, argument := range node.Positional {
		form := "<" + argument.Name + ">"
		if argument.IsCumulative() {
			form += " ..."
		}
		if !argument.Required {
			form = "[" + form + "]"
		}
		fmt.Fprintf(&b, ".I %s\n", text(form))
	}
	if len(node.Children) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, child := range node.Children {
			if !child.Hidden {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", text(name+"-"+child.Name), text(child.Help))
			}
		}
	}
	if len(node.Positional) > 0 {
		b.WriteString(".SH ARGUMENTS\n")
		for _, argument := range node.Positional {
			fmt.Fprintf(&b, ".TP\n.I %s\n%s\n", text(argument.Name), text(argument.Help))
		}
	}
	flagsOf(&b, node)
	if example := strings.TrimRight(examples(strings.Join(path[1:], " ")), "\n"); example != "" {
		b.WriteString(".SH NOTES AND EXAMPLES\n.nf\n")
		for line := range strings.SplitSeq(example, "\n") {
			b.WriteString(text(line) + "\n")
		}
		b.WriteString(".fi\n")
	}
	if len(path) > 1 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", text(strings.Join(path[:len(path)-1], "-")))
	}
	return Page{name + ".1", b.String()}
}

// flagsOf writes the flags of a command, by their groups.
func flagsOf(b *strings.Builder, node *kong.Node) {
	var titles []string
	groups := map[string][]*kong.Flag{}
	for _, flag := range node.Flags {
		if flag.Hidden {
			continue
		}
		title := "Flags"
		if flag.Group != nil && flag.Group.Title != "" {
			title = strings.TrimSuffix(flag.Group.Title, ":")
		}
		if groups[title] == nil {
			titles = append(titles, title)
		}
		groups[title] = append(groups[title], flag)
	}
	if len(titles) > 0 {
		b.WriteString(".SH FLAGS\n")
	}
	for _, title := range titles {
		fmt.Fprintf(b, ".SS %s\n", text(title))
		for _, flag := range groups[title] {
			form := "--" + flag.Name
			if flag.Short != 0 {
				form = "-" + string(flag.Short) + ", " + form
			}
			if flag.Tag.Negatable != "" {
				form += ", --no-" + flag.Name
			} else if !flag.IsBool() {
				form += "=" + flag.FormatPlaceHolder()
			}
			help := flag.Help
			if flag.HasDefault && flag.Default != "" {
				help += " Default: " + flag.Default + "."
			}
			fmt.Fprintf(b, ".TP\n.B %s\n%s\n", text(form), text(help))
		}
	}
}

// text returns what roff prints as the text.
func text(plain string) string {
	plain = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(plain)
	if strings.HasPrefix(plain, ".") {
		plain = `\&` + plain
	}
	return strings.ReplaceAll(plain, "\n", " ")
}

func quoted(plain string) string { return `"` + strings.ReplaceAll(text(plain), `"`, `\(dq`) + `"` }
