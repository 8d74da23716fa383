package doctor

import (
	"context"
	"fmt"
	"slices"
)

// Fix is one change that the doctor can make by itself: undone as easily, and
// such that nobody is locked out by it.
type Fix struct {
	Item string // its id
	What string // what will be done

	do fix
}

// fix offers to put it right; what says what will be done.
func (r *Reason) fix(do fix, format string, args ...any) {
	r.Fix, r.do = fmt.Sprintf(format, args...), do
}

// Fixes are what can be mended by itself, each once.
func (r Report) Fixes() []Fix {
	var out []Fix
	for _, i := range r.Items {
		for _, reason := range i.Reasons {
			if reason.do == nil || slices.ContainsFunc(out, func(f Fix) bool { return f.What == reason.Fix }) {
				continue
			}
			out = append(out, Fix{i.ID, reason.Fix, reason.do})
		}
	}
	return out
}

// Apply makes the change.
func (f Fix) Apply(ctx context.Context, m Machine) error {
	if err := f.do(ctx, m); err != nil {
		return fmt.Errorf("%s: %w", f.What, err)
	}
	return nil
}
