package output

import (
	"slices"
	"strings"
)

// narrowest is how far a column is cut at most.
const narrowest = 8

// table writes the rows that have come since the last time, the first time under
// their heads. A column is as wide as the widest text that it has held.
func (p *Printer) table() error {
	rows := p.rows
	p.rows = nil
	isFirst := p.widths == nil
	if isFirst {
		p.widths = make([]int, len(p.columns))
		for i, c := range p.columns {
			p.widths[i] = max(width(c.Head), c.Least)
		}
	}
	for _, row := range rows {
		for i, text := range row {
			p.widths[i] = max(p.widths[i], width(text))
		}
	}
	p.fit()
	var b strings.Builder
	if isFirst {
		heads := make([]string, len(p.columns))
		for i, c := range p.columns {
			heads[i] = c.Head
		}
		line := p.row(heads)
		if p.terminal.Color {
			line = bold(line)
		}
		// The writer escapes what a terminal obeys, but for this one.
		if err := p.raw(line + "\n"); err != nil {
			return err
		}
	}
	for _, row := range rows {
		b.WriteString(p.row(row))
		b.WriteByte('\n')
	}
	if b.Len() == 0 {
		return nil
	}
	return p.write([]byte(b.String()))
}

func bold(text string) string { return "\x1b[1m" + text + "\x1b[0m" }

// raw writes text of this program's own, as it is.
func (p *Printer) raw(text string) error {
	safe, ok := p.w.(safeWriter)
	if !ok {
		return p.write([]byte(text))
	}
	p.w = safe.w
	err := p.write([]byte(text))
	p.w = safe
	return err
}

// fit makes flexible columns narrower, the widest first, until the table fits.
func (p *Printer) fit() {
	if p.terminal.Width == 0 {
		return
	}
	for {
		total, widest := -2, -1
		for i, w := range p.widths {
			total += w + 2
			if p.columns[i].Flexible && w > narrowest && (widest < 0 || w > p.widths[widest]) {
				widest = i
			}
		}
		if total <= p.terminal.Width || widest < 0 {
			return
		}
		p.widths[widest]--
	}
}

func (p *Printer) row(cells []string) string {
	var b strings.Builder
	for i, text := range cells {
		if p.terminal.Width > 0 && p.columns[i].Flexible {
			text = cut(text, p.widths[i])
		}
		b.WriteString(pad(text, p.widths[i]))
		b.WriteString("  ")
	}
	return strings.TrimRight(b.String(), " ")
}

// details writes one result, a line for each of its members; of an object within it,
// one for each of that one's.
func (p *Printer) details(v *value) error {
	type line struct{ name, text string }
	var lines []line
	var add func(prefix string, v *value)
	add = func(prefix string, v *value) {
		for i, name := range v.names {
			member := v.members[i]
			switch {
			case member.kind == '{' && len(member.names) > 0:
				add(prefix+name+".", member)
			case member.kind == '[' && slices.ContainsFunc(member.members, func(v *value) bool { return v.kind == '{' }):
				for _, item := range member.members {
					lines = append(lines, line{prefix + name, item.String()})
				}
			default:
				lines = append(lines, line{prefix + name, member.String()})
			}
		}
	}
	add("", v)
	widest := 0
	for _, l := range lines {
		widest = max(widest, width(l.name))
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(pad(Printable(l.name), widest)+"  "+Printable(l.text), " "))
		b.WriteByte('\n')
	}
	return p.write([]byte(b.String()))
}
