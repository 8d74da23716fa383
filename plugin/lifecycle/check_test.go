package lifecycle

import (
	"fmt"
	"testing"
	"time"
)

func TestNextCheck(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 500, time.UTC)
	hours := map[int]int{}
	for i := range 2000 {
		uid := fmt.Sprintf("%012x", i)
		first := NextCheck(uid, at)
		if !first.After(at) || first.Sub(at) > CheckEvery {
			t.Fatalf("%s: %s after %s", uid, first, at)
		}
		if got := NextCheck(uid, first); !got.Equal(first.Add(CheckEvery)) {
			t.Fatalf("%s: after %s comes %s", uid, first, got)
		}
		if got := NextCheck(uid, first.Add(-time.Second)); !got.Equal(first) {
			t.Fatalf("%s: a second before %s comes %s", uid, first, got)
		}
		if got := NextCheck(uid, first.Add(7*time.Hour)); !got.Equal(first.Add(CheckEvery)) {
			t.Fatalf("%s: a late look moves the next to %s", uid, got)
		}
		hours[int(first.Sub(at)/time.Hour)]++
	}
	for h := range int(CheckEvery / time.Hour) {
		if n := hours[h]; n < 50 || n > 200 {
			t.Errorf("%d of 2000 keys are looked at in hour %d of %s", n, h, CheckEvery)
		}
	}
	if CheckEvery+RefusedApart+time.Hour > 24*time.Hour {
		t.Error("a dead key is not told of within a day")
	}
}

func TestRefused(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	first := Refused(nil, 3, at, "no")
	if first.Version != 3 || !first.First.Equal(at) || !first.Dead.IsZero() {
		t.Fatalf("%+v", first)
	}
	for d, dead := range map[time.Duration]bool{0: false, time.Minute: false, RefusedApart - 1: false, RefusedApart: true, 30 * time.Hour: true, -time.Hour: false} {
		got := Refused(first, 3, at.Add(d), "still no")
		if got.Dead.IsZero() == dead || !got.First.Equal(at) {
			t.Errorf("%s later: %+v", d, got)
		}
	}
	if !first.Dead.IsZero() {
		t.Error("it was changed in place")
	}
	if got := Refused(first, 4, at.Add(2*RefusedApart), "no"); got.Version != 4 || !got.Dead.IsZero() {
		t.Errorf("another version: %+v", got)
	}
	dead := Refused(first, 3, at.Add(RefusedApart), "no")
	if got := Refused(dead, 3, at.Add(90*time.Hour), "no"); got != dead {
		t.Errorf("a third refusal changes %+v to %+v", dead, got)
	}
}
