package httpprov

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"strongroom.example/plugin/provider"
)

// Inspect sends the first request of a list, or a test, and tells what each
// declared path selects.
func (p *Provider) Inspect(ctx context.Context, op string, params map[string]any, key provider.Key) ([]provider.Selected, error) {
	r := p.inspected(op)
	if r == nil {
		return nil, unsupported(op)
	}
	s, err := p.scope(op, params)
	if err != nil {
		return nil, err
	}
	p.addKey(s, key)
	s[refPrefix] = ""
	move := func(*url.URL) error { return nil }
	if op == "list" {
		at := p.list.paging.start()
		move = func(u *url.URL) error { return at.apply(u, r.base) }
	}
	res, masks, err := p.send(ctx, r, s, move, false)
	if err != nil {
		return nil, err
	}
	if e := p.outcome(r, res, masks, false, false); e != nil {
		return nil, e
	}
	look := inspection{masks: masks}
	doc, err := decode(res.Body)
	switch {
	case op == "test" && len(p.test.expect) == 0 && !p.test.declared():
		return nil, nil // nothing is read of the answer
	case err != nil:
		return nil, &provider.Error{Op: op, Kind: provider.KindTransient, Status: res.Status, Msg: err.Error()}
	case op == "test":
		for _, c := range p.test.expect {
			look.at("expect", c.path, doc)
		}
		look.time("expires", p.test.expires, doc)
		look.at("expires_in", p.test.expiresIn, doc)
	default:
		look.list(p.list, doc)
	}
	return look.found, nil
}

func (p *Provider) inspected(op string) *request {
	switch {
	case op == "list" && p.list != nil:
		return p.list.request
	case op == "test" && p.test != nil:
		return p.test.request
	}
	return nil
}

type inspection struct {
	masks *masker
	found []provider.Selected
}

func (i *inspection) list(l *listSpec, doc any) {
	i.at("items", l.items, doc)
	i.at("total", l.total, doc)
	i.at("paging.total_pages", l.paging.total, doc)
	i.at("paging.next", l.paging.next, doc)
	i.at("paging.more", l.paging.more, doc)
	items, err := l.items.list(doc, l.absence)
	if err != nil || len(items) == 0 {
		return
	}
	first := items[0]
	i.at("id", l.id, first)
	i.at("name", l.name, first)
	i.time("created", l.created, first)
	i.time("last_used", l.lastUsed, first)
	i.time("expires", l.expires, first)
	for _, c := range l.where {
		i.at("where", c.path, first)
	}
}

func (i *inspection) at(field string, p *path, doc any) {
	if p != nil {
		i.found = append(i.found, provider.Selected{Field: field, Path: p.source, Shown: i.show(p, doc)})
	}
}

// time is at for what must be a time: it says which one was read.
func (i *inspection) time(field string, p *path, doc any) {
	if p == nil {
		return
	}
	shown := i.show(p, doc)
	switch at, told, err := p.end(doc); {
	case err != nil:
		shown = "no time that can be read: " + shown
	case told && at.IsZero():
		shown += ", that is never"
	case told:
		shown = at.Format(time.RFC3339)
	}
	i.found = append(i.found, provider.Selected{Field: field, Path: p.source, Shown: shown})
}

// show describes what a path selects. Words are masked as a service's own are.
func (i *inspection) show(p *path, doc any) string {
	v, ok, err := p.one(doc)
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q, %d bytes", i.masks.message(v), len(v))
	case json.Number:
		return "the number " + i.masks.message(v.String())
	case bool:
		return fmt.Sprint(v)
	case []any:
		return fmt.Sprintf("a list of %d", len(v))
	case map[string]any:
		return fmt.Sprintf("a table of %d fields", len(v))
	}
	switch {
	case err != nil:
		return "several values"
	case ok:
		return "null"
	}
	return "nothing"
}
