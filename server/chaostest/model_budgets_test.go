package chaostest

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// budgetModel is a counter with a floor: what is granted is taken off, and nothing is
// granted below zero. A refusal may come early, since other replicas hold units, or have
// lost them with their processes.
func budgetModel(limit int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return limit },
		Step: func(state, input, _ any) (bool, any) {
			left, o := state.(int64), input.(*operation)
			if o.Code != "valid" {
				return true, left
			}
			return left >= o.Cost, left - o.Cost
		},
		DescribeOperation: func(input, _ any) string { return input.(*operation).describe() },
		DescribeState:     func(state any) string { return fmt.Sprint(state, " left") },
	}
}

// checkRate holds the grants of a limit of so many units in a window against it: no more
// is granted between two times than a full burst and what is refilled in between.
// Each grant was made between its call and its return.
func checkRate(name string, grants []*operation, units int64, window time.Duration) string {
	grants = slices.Clone(grants)
	slices.SortFunc(grants, func(a, b *operation) int { return int(a.Return - b.Return) })
	for _, first := range grants {
		begin := first.Call
		// All grants that were surely made between begin and the return of another.
		var sum int64
		for _, o := range grants {
			if o.Call < begin {
				continue
			}
			sum += o.Cost
			most := units + int64(float64(units)*float64(o.Return-begin)/float64(window)) + 1
			if sum > most {
				return fmt.Sprintf("%s: %d units were granted from %v to %v, and %d at most may be", name, sum, begin, o.Return, most)
			}
		}
	}
	return ""
}
