package pause

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestFor(t *testing.T) {
	if err := For(t.Context(), time.Nanosecond); err != nil {
		t.Errorf("a wait to its end: %v", err)
	}
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if err := For(ctx, time.Hour); !errors.Is(err, over) {
		t.Errorf("a wait that ends early: %v", err)
	}
}
