package httpprov

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"

	"strongroom.example/plugin/provider/internal/fields"
	"strongroom.example/plugin/provider/safehttp"
)

const (
	maxPages = 200
	maxItems = 20_000
)

// paging is how a list goes on. A list that cannot be read to its end is an
// error, never a shorter list: the engine takes what is not listed for gone.
type paging struct {
	kind      string // "", page, offset, cursor, link
	parameter string // of the query
	first     int
	total     *path // number of pages, where the answer tells it
	next      *path // cursor or URL of the next page
	more      *path // false: this was the last page
}

func readPaging(m *fields.Map) paging {
	if m == nil {
		return paging{}
	}
	p := paging{kind: m.OneOf("type", "", "page", "offset", "cursor", "link")}
	if p.kind != "link" {
		p.parameter = m.String("parameter", "", 64)
		if p.parameter == "" {
			m.Fail("parameter", "is missing: the name of the query parameter")
		}
	}
	switch p.kind {
	case "page":
		p.first = m.Int("first", 1, 0, 1)
		p.total = optionalPath(m, "total_pages")
	case "cursor":
		p.next = neededPath(m, "next")
		p.more = optionalPath(m, "more")
	case "link":
		p.next = optionalPath(m, "next") // or else the header Link
	}
	return p
}

// cursor is the place in a list that is being read.
type cursor struct {
	paging
	page, got int
	step      int    // the keys of the longest page so far
	empty     int    // empty pages in a row
	pages     int    // the most that the answers told
	token     string // cursor or URL; "" on the first page
}

func (p paging) start() *cursor { return &cursor{paging: p, page: p.first} }

// apply moves u to the cursor's page.
func (c *cursor) apply(u *url.URL, base string) error {
	if c.kind == "link" {
		if c.token == "" {
			return nil
		}
		next, err := u.Parse(c.token)
		if err != nil {
			return answerFault("the link to the next page is no URL")
		}
		// The credential goes along, so the host must be the same.
		if next.Scheme+"://"+next.Host+"/" != base || next.User != nil {
			return answerFault("the link to the next page leads to another host")
		}
		next.Fragment = ""
		*u = *next
		return nil
	}
	value := ""
	switch c.kind {
	case "page":
		value = strconv.Itoa(c.page)
	case "offset":
		value = strconv.Itoa(c.got)
	case "cursor":
		value = c.token
	}
	if value == "" {
		return nil
	}
	q := u.Query()
	q.Set(c.parameter, value)
	u.RawQuery = q.Encode()
	return nil
}

var nextLink = regexp.MustCompile(`<([^<>]*)>\s*;[^,<]*\brel="?next"?`)

// advance tells whether there is a further page, and moves to it.
func (c *cursor) advance(doc any, res *safehttp.Response, items int) (bool, error) {
	c.page++
	c.got += items
	c.step, c.empty = max(c.step, items), c.empty+1
	if items > 0 {
		c.empty = 0
	}
	if c.kind == "" {
		return false, nil
	}
	if c.page-c.first >= maxPages || c.got > maxItems {
		return false, answerFault("the list has more than %d pages or %d keys", maxPages, maxItems)
	}
	switch c.kind {
	case "page":
		if total := c.total.text(doc); total != "" {
			n, err := strconv.Atoi(total)
			if err != nil {
				return false, answerFault("%s is no number of pages", c.total.source)
			}
			c.pages = max(c.pages, n) // a page that is empty may say 0
		}
		if c.pages > 0 || c.total.text(doc) != "" {
			return c.page-c.first < c.pages, nil
		}
		return c.empty < 2, nil // one may be empty in the middle
	case "offset":
		if items == 0 {
			c.got += c.step
		}
		return c.empty < 2 && c.step > 0, nil
	case "cursor":
		more, next := c.more.text(doc), c.next.text(doc)
		if more == "false" {
			return false, nil
		}
		if more == "true" && next == "" {
			return false, answerFault("there is more to the list, but %s does not say where", c.next.source)
		}
		return c.follow(next)
	}
	if c.next != nil {
		return c.follow(c.next.text(doc))
	}
	for _, h := range res.Header.Values("Link") {
		if m := nextLink.FindStringSubmatch(h); m != nil {
			return c.follow(m[1])
		}
	}
	return false, nil
}

func (c *cursor) follow(token string) (bool, error) {
	if token == "" {
		return false, nil
	}
	if token == c.token || len(token) > maxTemplate {
		return false, fmt.Errorf("%w: the next page is the same page", errAnswer)
	}
	c.token = token
	return true, nil
}
