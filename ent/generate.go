package ent

//go:generate go run -modfile=../.tools/go.mod ../.tools/ent.go
