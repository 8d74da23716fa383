package snapshot

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"strongroom.example/appliance/base/pause"
)

// eachBeside verifies in each place, none waiting for another; where Beside is set, for as
// long as one of them is under way, and again where something new is stored meanwhile.
func (o *VerifyOptions) eachBeside(ctx context.Context, places []Destination, known *verifyRecorder) []error {
	errs := make([]error, len(places))
	led := o.Beside && o.news()
	var at underWay
	at.add(len(places))
	var all sync.WaitGroup
	for i, d := range places {
		all.Go(func() {
			for first := true; ; first = false {
				tried := o.stored(d)
				if !led || !first || o.isDue(d) {
					_, each := inEach(ctx, places[i:i+1], o.Stall, func(ctx context.Context, d Destination) (struct{}, error) {
						return struct{}{}, o.verifyIn(ctx, d, known)
					})
					errs[i] = each[0]
					known.look()
				}
				at.add(-1)
				if !o.Beside || !o.awaitNew(ctx, d, tried, &at) {
					return
				}
				at.add(1)
			}
		})
	}
	all.Wait()
	return errs
}

// besideEvery is how soon something new is seen: the taking job's state is a small file.
const besideEvery = 2 * time.Second

// awaitNew waits for another snapshot than the one that was tried to be stored in a place,
// as long as another place is under way.
func (o *VerifyOptions) awaitNew(ctx context.Context, d Destination, tried string, at *underWay) bool {
	for {
		// Before it is looked: what is stored while the last one ends is seen.
		over := at.none()
		if now := o.stored(d); now != tried && now != "" {
			return true
		}
		if over || pause.For(ctx, besideEvery) != nil {
			return false
		}
	}
}

// stored is the id of what the taking job has stored last in a place.
func (o *VerifyOptions) stored(d Destination) string {
	s, err := LoadTakeState(o.TakeStateDir)
	if err != nil {
		return "" // told by who verifies
	}
	return s.Last[d.Name()].ID
}

// takeNotes names the taking job's state as it is now; empty where nobody knows.
func (o *VerifyOptions) takeNotes() string {
	data, err := os.ReadFile(filepath.Join(o.TakeStateDir, takeStateFile))
	if err != nil {
		return ""
	}
	return sha256Hex(data)
}

// news says whether the taking job has noted something since a run like this one ended.
// Where it has not, a person has started this one, and wants all of it read: systemd does
// not say who has (of a unit that a path has started once it says so ever after).
func (o *VerifyOptions) news() bool {
	s, err := LoadVerifyState(o.StateDir)
	now := o.takeNotes()
	return err == nil && now != "" && s.Seen != now
}

// isDue says whether a place has to be read: not where what it holds was since the taking
// job's last run began. A date after now says nothing.
func (o *VerifyOptions) isDue(d Destination) bool {
	taken, err := LoadTakeState(o.TakeStateDir)
	if err != nil || taken.Standby != nil || taken.Began.IsZero() {
		return true
	}
	good, err := LoadVerifyState(o.StateDir)
	if err != nil || good.Failures[d.Name()].Error != "" {
		return true
	}
	rec, last := good.LastGood[d.Name()], taken.Last[d.Name()]
	if rec.ID == "" || rec.ID != last.ID || rec.ManifestSHA256 != last.ManifestSHA256 {
		return true
	}
	return rec.VerifiedAt.Before(taken.Began) || rec.VerifiedAt.After(o.Now())
}

// underWay counts places that are being read.
type underWay struct {
	mu sync.Mutex
	n  int
}

func (u *underWay) add(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n += n
}

func (u *underWay) none() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n == 0
}
