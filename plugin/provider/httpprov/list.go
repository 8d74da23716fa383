package httpprov

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"strongroom.example/plugin/provider"
)

// List reads every page. A list that cannot be read to its end is an error.
func (p *Provider) List(ctx context.Context, params map[string]any, prefix string) ([]provider.RemoteKey, error) {
	keys, err := p.listAll(ctx, params, prefix)
	if err != nil {
		return nil, err
	}
	var out []provider.RemoteKey
	for _, k := range keys {
		out = append(out, k.RemoteKey)
	}
	return out, nil
}

func (p *Provider) listAll(ctx context.Context, params map[string]any, prefix string) ([]listed, error) {
	const op = "list"
	if p.list == nil {
		return nil, unsupported(op)
	}
	s, err := p.scope(op, params)
	if err != nil {
		return nil, err
	}
	s[refPrefix] = p.name.prefix(prefix)
	var out []listed
	seen := map[string]bool{}
	var odd error // of a key that may be ours
	oddly, total := 0, 0
	for at := p.list.paging.start(); ; {
		res, masks, err := p.send(ctx, p.list.request, s, func(u *url.URL) error { return at.apply(u, p.list.base) }, false)
		if err != nil {
			return nil, err
		}
		if e := p.outcome(p.list.request, res, masks, false, false); e != nil {
			return nil, e
		}
		page, doc, err := p.readList(res.Body)
		fresh := 0
		for _, k := range page {
			switch {
			case k.odd != nil:
				fresh++
				oddly++
				// It is somebody else's, unless it has a name of ours.
				if prefix != "" && strings.HasPrefix(k.Name, prefix) || p.list.name == nil && k.misread {
					odd = k.odd
				}
				continue
			case seen[k.ID]:
				continue
			}
			seen[k.ID] = true
			fresh++
			if k.alive && (p.list.name == nil || strings.HasPrefix(k.Name, prefix)) {
				out = append(out, k)
			}
		}
		more := false
		if err == nil {
			if len(page) > 0 && fresh == 0 {
				err = answerFault("a further page holds only keys of earlier ones")
			} else {
				more, err = at.advance(doc, res, len(page))
			}
		}
		if err == nil {
			total, err = p.list.keysTold(doc, total)
		}
		if err == nil && !more {
			switch got := len(seen) + oddly; {
			case got < total:
				err = answerFault("%d keys were listed, %s says there are %d", got, p.list.total.source, total)
			case odd != nil && (p.list.name != nil || len(seen) == 0):
				err = odd // the id of a key of ours or, where none has one, of all
			}
		}
		if err != nil {
			return nil, &provider.Error{Op: op, Kind: provider.KindTransient, Status: res.Status, Msg: err.Error(), Err: err}
		}
		if !more {
			return out, nil
		}
	}
}

type listed struct {
	provider.RemoteKey
	alive   bool
	odd     error // why its id cannot be used; nil: it can
	misread bool  // the id is of a type that no id has
	shown   string
	// endFault is why nobody can read when it ends.
	endFault error
}

// keysTold is how many keys the service says there are, on this page or one
// before.
func (l *listSpec) keysTold(doc any, before int) (int, error) {
	text := l.total.text(doc)
	if text == "" {
		return before, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, answerFault("%s is no number of keys", l.total.source)
	}
	return max(n, before), nil
}

// holdsList tells whether a table has a list in it: where the keys are absent,
// an answer that lists something else is no answer to the question.
func holdsList(doc any) bool {
	table, _ := doc.(map[string]any)
	for _, v := range table {
		if _, ok := v.([]any); ok {
			return true
		}
	}
	return false
}

func (p *Provider) readList(body []byte) ([]listed, any, error) {
	l := p.list
	doc, err := decode(body)
	if err != nil {
		return nil, nil, err
	}
	items, err := l.items.list(doc, l.absence)
	if err != nil {
		return nil, nil, err
	}
	if _, there, _ := l.items.one(doc); !there && holdsList(doc) {
		return nil, nil, answerFault("%s selects nothing, and the answer holds another list", l.items.source)
	}
	out := make([]listed, 0, len(items))
	for _, item := range items {
		k := listed{alive: true}
		v, there, err := l.id.one(item)
		if err != nil {
			return nil, nil, err
		}
		if !there {
			return nil, nil, answerFault("%s selects nothing", l.id.source)
		}
		if k.ID, k.odd = l.id.id(item); k.odd == nil && p.idPattern != nil && !p.idPattern.MatchString(k.ID) {
			k.odd = answerFault("%s is not of the form id_pattern", l.id.source)
		}
		_, scalar := provider.ScalarText(v)
		k.misread = !scalar && v != nil
		k.shown = l.name.text(item)
		k.Name = p.name.decode(k.shown)
		k.Created, k.LastUsed = l.created.time(item), l.lastUsed.time(item)
		if l.expires != nil {
			var told bool
			if k.Expires, told, k.endFault = l.expires.end(item); !told && k.endFault == nil && !l.neverAbsent {
				k.endFault = answerFault("%s selects nothing", l.expires.source)
			}
		}
		for _, c := range l.where {
			if differs, _ := c.differs(item); differs {
				k.alive = false
			}
		}
		out = append(out, k)
	}
	return out, doc, nil
}
