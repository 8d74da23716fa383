package apikeys

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// eventKey orders a webhook's events by their time.
func eventKey(hook string, e *hookEvent) string {
	return fmt.Sprintf("%s%s/%016x-%s", eventsPrefix, hook, uint64(e.Time.UnixNano()), e.ID)
}

func (st store) putEvent(ctx context.Context, hook string, e *hookEvent) error {
	return st.put(ctx, eventKey(hook, e), e)
}

func (st store) removeEvent(ctx context.Context, hook string, e *hookEvent) error {
	return st.remove(ctx, eventKey(hook, e))
}

// eventHooks lists the webhooks for which events are stored.
func (st store) eventHooks(ctx context.Context) ([]string, error) {
	names, err := st.list(ctx, eventsPrefix)
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], "/")
	}
	return names, err
}

// events reads a webhook's events, the oldest first. It reads several at a
// time: each is a round trip to Vault.
func (st store) events(ctx context.Context, hook string) ([]hookEvent, error) {
	ids, err := st.list(ctx, eventsPrefix+hook+"/")
	if err != nil {
		return nil, err
	}
	const readers = 8
	var wg sync.WaitGroup
	found := make([]*hookEvent, len(ids))
	errs := make([]error, len(ids))
	for r := range readers {
		wg.Go(func() {
			for i := r; i < len(ids); i += readers {
				e := &hookEvent{}
				ok, err := st.get(ctx, eventsPrefix+hook+"/"+ids[i], e)
				if errs[i] = err; ok && err == nil {
					found[i] = e
				}
			}
		})
	}
	wg.Wait()
	var out []hookEvent
	for i, e := range found {
		if errs[i] != nil {
			return nil, errs[i]
		}
		if e != nil { // delivered meanwhile
			out = append(out, *e)
		}
	}
	slices.SortStableFunc(out, func(a, b hookEvent) int { return a.Time.Compare(b.Time) })
	return out, nil
}

// removeEvents removes all of a webhook's events.
func (st store) removeEvents(ctx context.Context, hook string) error {
	ids, err := st.list(ctx, eventsPrefix+hook+"/")
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := st.remove(ctx, eventsPrefix+hook+"/"+id); err != nil {
			return err
		}
	}
	return nil
}
