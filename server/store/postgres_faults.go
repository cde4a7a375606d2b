package store

// postgresFaults are the answers of PostgreSQL that are faults of its storage, by
// their SQLSTATE.
var postgresFaults = map[string]FaultKind{
	"XX001": FaultDamaged, // data_corrupted
	"XX002": FaultDamaged, // index_corrupted
	"25006": FaultReadOnly,
	"53100": FaultFull,
	"58030": FaultIO,
}

var postgresFaultTexts = [...]faultText{
	FaultDamaged:    {"is damaged", "stop the server and restore the database from the backup that belongs to its secrets file"},
	FaultReadOnly:   {"cannot be written to: it is read-only, as a standby is", "lead the server to the primary, such as by target_session_attrs=read-write in a URL of several hosts; the server goes on by itself once it can write"},
	FaultFull:       {"has no room to grow: the disk of PostgreSQL is full", "free some space on that disk; the server goes on by itself"},
	FaultIO:         {"cannot be read or written: the disk of PostgreSQL fails", "look for disk errors in the log of PostgreSQL and of its machine; the server goes on by itself if the disk comes back"},
	FaultUnopenable: {"cannot be opened", "look into the log of PostgreSQL"},
}

// fault returns err as a fault of the storage of PostgreSQL, or nil where it is
// none.
func (d *postgresDatabase) fault(err error) *Fault {
	kind, ok := postgresFaults[postgresCode(err)]
	if !ok {
		return nil
	}
	return &Fault{Kind: kind, Database: d.String(), Err: err}
}
