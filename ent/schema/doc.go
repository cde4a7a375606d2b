// Package schema is the shape of the database, the one source from which the
// rest of ent/ and the migrations of server/store are generated.
//
// Every time is an integer, microseconds since 1970 in UTC, so that both
// databases order, compare and index times alike and no driver's idea of a zone
// comes between. A time that is absent is NULL.
package schema
