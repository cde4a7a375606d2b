package main

import (
	"testing"

	"ariga.io/atlas/sql/migrate"
	atlas "ariga.io/atlas/sql/schema"
)

// TestExpands says which changes a program can work with that does not know them.
func TestExpands(t *testing.T) {
	t.Parallel()
	column := func(null bool, other atlas.Expr) *atlas.AddColumn {
		return &atlas.AddColumn{C: &atlas.Column{Name: "c", Type: &atlas.ColumnType{Null: null}, Default: other}}
	}
	index := func(name string, unique bool) *atlas.AddIndex {
		return &atlas.AddIndex{I: &atlas.Index{Name: name, Unique: unique}}
	}
	modify := func(changes ...atlas.Change) *atlas.ModifyTable { return &atlas.ModifyTable{Changes: changes} }
	earlier := []migrate.File{migrate.NewLocalFile("1_a.sql", []byte("CREATE UNIQUE INDEX `there` ON `t` (`c`);"))}
	for name, c := range map[string]struct {
		change atlas.Change
		cmd    string
		want   bool
	}{
		"a new table":                       {&atlas.AddTable{}, "CREATE TABLE", true},
		"a new index":                       {index("new", false), "CREATE INDEX", true},
		"a column that may be absent":       {modify(column(true, nil)), "ALTER TABLE", true},
		"a column with a default":           {modify(column(false, &atlas.Literal{V: "0"})), "ALTER TABLE", true},
		"what SQLite does around a copy":    {nil, "PRAGMA foreign_keys = off", true},
		"an index made again after a copy":  {index("there", true), "CREATE UNIQUE INDEX", true},
		"a column that every row must have": {modify(column(false, nil)), "ALTER TABLE", false},
		"a new index that refuses":          {index("new", true), "CREATE UNIQUE INDEX", false},
		"the same of a known table":         {modify(index("new", true)), "CREATE UNIQUE INDEX", false},
		"a column of another type":          {modify(&atlas.ModifyColumn{}), "ALTER TABLE", false},
		"a column less":                     {modify(column(true, nil), &atlas.DropColumn{}), "ALTER TABLE", false},
		"a table less":                      {&atlas.DropTable{}, "DROP TABLE", false},
		"a statement of nothing":            {nil, "DELETE FROM t", false},
	} {
		p := &migrate.Plan{Changes: []*migrate.Change{{Cmd: c.cmd, Source: c.change}}}
		if got := expands(p, earlier); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
