package httpprov

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"strongroom.example/plugin/provider"
)

// DryRun renders every declared request. The secrets are never filled in, so
// none can slip through; what is only known at run time stands as its own
// reference would ("ID", "NAME").
func (p *Provider) DryRun(params map[string]any) ([]provider.DryRequest, error) {
	s, err := resolve(p.params, params)
	if err != nil {
		return nil, err
	}
	maps.Copy(s, p.vars)
	for name := range p.credential {
		s[groupCredential+"."+name] = provider.Masked
	}
	s[refName], s[refID], s[refPrefix], s[refAccess] = "NAME", "ID", "PREFIX", provider.Masked
	if p.create != nil {
		expiresScope(s, p.now(), p.create.lifetime)
	}
	var out []provider.DryRequest
	var faults []error
	for _, r := range p.requests() {
		for _, ref := range r.valueRefs() {
			s[ref] = provider.Masked
		}
		one, err := r.render(s, true)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", r.op, err))
			continue
		}
		d := provider.DryRequest{
			Op: r.op, Method: one.Method, URL: one.URL.String(), Body: string(one.body), Header: map[string]string{},
		}
		for name := range one.Header {
			d.Header[name] = one.Header.Get(name)
		}
		out = append(out, d)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return out, nil
}

// requests are the declared ones, in the order of a key's life.
func (p *Provider) requests() []*request {
	var out []*request
	add := func(r *request) {
		if o := r.auth.oauth; o != nil && !slices.Contains(out, o.request) {
			out = append(out, o.request)
		}
		out = append(out, r)
	}
	if p.create != nil {
		add(p.create.request)
	}
	if p.list != nil {
		add(p.list.request)
	}
	if p.test != nil {
		add(p.test.request)
	}
	if p.lastUsed != nil {
		add(p.lastUsed.request)
	}
	if p.revoke != nil {
		add(p.revoke)
	}
	return out
}

// Destinations are the places that the declared requests send secrets to.
func (p *Provider) Destinations() []provider.Destination {
	var out []provider.Destination
	for _, r := range p.requests() {
		for _, ref := range r.valueRefs() {
			d := provider.Destination{Secret: provider.SecretCredential, Origin: strings.TrimSuffix(r.base, "/")}
			if strings.HasPrefix(ref, groupValue+".") {
				d.Secret = provider.SecretValue
			}
			if !slices.Contains(out, d) {
				out = append(out, d)
			}
		}
	}
	return out
}

// valueRefs are the references to a key's values.
func (r *request) valueRefs() []string {
	var out []string
	for _, t := range r.allTemplates() {
		for _, ref := range t.refs() {
			if secret(ref) {
				out = append(out, ref)
			}
		}
	}
	return out
}
