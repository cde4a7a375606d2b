package store

import entmigrate "github.com/apikeys-dev/apikeys/ent/migrate"

// MoveWith returns c with a function that is called before each step of the move.
func MoveWith(c MoveConfig, step func(name string) error) MoveConfig {
	c.step = step
	return c
}

// UnmovedTables returns the tables that a move has no word of, and the words that it
// has of tables which there are not.
func UnmovedTables() (wrong []string) {
	known := make(map[string]bool)
	for _, t := range entmigrate.Tables {
		known[t.Name] = true
		if _, ok := moves[t.Name]; !ok {
			wrong = append(wrong, t.Name+" is not in the list")
		}
	}
	for name := range moves {
		if !known[name] {
			wrong = append(wrong, name+" is in the list and not in the schema")
		}
	}
	tables, _ := moveTables()
	for _, t := range tables {
		if len(t.PrimaryKey) != 1 {
			wrong = append(wrong, t.Name+" has no primary key of one column, by which it is read in order")
		}
		for _, c := range t.Columns {
			if _, err := scanOf(c.Type); err != nil {
				wrong = append(wrong, t.Name+"."+c.Name+": "+err.Error())
			}
		}
	}
	return wrong
}

// MovedTables returns the tables whose rows are moved, and all that a move knows: those
// that it leaves, that of terms, which triggers write, and that of migrations.
func MovedTables() (moved, known []string) {
	for name, m := range moves {
		if known = append(known, name); m.left == "" {
			moved = append(moved, name)
		}
	}
	return moved, append(known, termTable, revisionTable)
}
