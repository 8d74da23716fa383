package httpprov

import (
	"encoding/base64"
	"net/url"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
)

// auth is how a request shows a credential.
type auth struct {
	kind     string // none, bearer, basic, header, oauth2
	token    template
	username template
	password template
	headers  []pair
	// escaped: user name and password are those of an OAuth 2 client, which
	// are encoded as in a form (RFC 6749, section 2.3.1).
	escaped bool
	// oauth is where token comes from; nil: it is declared.
	oauth *oauth
}

// readAuth reads a table auth.
func (rd *reader) readAuth(m *fields.Map, refs []string) auth {
	a := auth{kind: m.OneOf("type", "none", "none", "bearer", "basic", "header", "oauth2")}
	one := func(name string) template {
		text := m.String(name, "", maxTemplate)
		t, err := parseTemplate(text)
		switch {
		case err != nil:
			m.Fail(name, "%v", err)
		case text == "":
			m.Fail(name, "is missing")
		default:
			rd.allowIn(m, name, t, refs, true, true, false)
		}
		return t
	}
	switch a.kind {
	case "bearer":
		a.token = one("token")
	case "basic":
		a.username, a.password = one("username"), one("password")
	case "oauth2":
		a.oauth = rd.readOAuth(m, one)
		a.token = template{parts: []part{{ref: refAccess}}}
	case "header":
		a.headers = rd.pairs(m, "headers", refs, true, badHeader)
		if len(a.headers) == 0 {
			m.Fail("headers", "is missing")
		}
	}
	return a
}

func (a auth) headerNames() []string {
	switch a.kind {
	case "bearer", "basic", "oauth2":
		return []string{"Authorization"}
	}
	var names []string
	for _, h := range a.headers {
		names = append(names, h.name)
	}
	return names
}

// set renders the headers into set. The encoded form of a password is a
// secret, too: it is what masks looks for, and what a dry run hides.
func (a auth) set(s scope, set func(name, value string) error, masks *masker, dry bool) error {
	switch a.kind {
	case "bearer", "oauth2":
		token, err := a.token.render(s, nil)
		if err != nil {
			return err
		}
		return set("Authorization", "Bearer "+token)
	case "basic":
		user, err := a.username.render(s, nil)
		if err != nil {
			return err
		}
		password, err := a.password.render(s, nil)
		if err != nil {
			return err
		}
		if a.escaped {
			user, password = url.QueryEscape(user), url.QueryEscape(password)
		}
		encoded := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		if dry {
			encoded = provider.Masked
		}
		masks.add(encoded)
		return set("Authorization", "Basic "+encoded)
	}
	for _, h := range a.headers {
		value, present, err := h.value.renderOptional(s)
		if err != nil {
			return err
		}
		if !present {
			continue
		}
		if err := set(h.name, value); err != nil {
			return err
		}
	}
	return nil
}
