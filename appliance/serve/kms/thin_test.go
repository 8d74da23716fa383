package kms

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestStayThin(t *testing.T) {
	var waits []time.Duration
	err := StayThin(t.Context(), func(_ context.Context, d time.Duration) error {
		if waits = append(waits, d); len(waits) == 3 {
			return errors.New("the daemon ends")
		}
		return nil
	})
	if err != nil || !slices.Equal(waits, []time.Duration{thinAfter, thinInterval, thinInterval}) {
		t.Errorf("waited %v, %v", waits, err)
	}
}
