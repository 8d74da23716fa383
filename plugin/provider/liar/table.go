package liar

import (
	"reflect"
	"time"

	"strongroom.example/plugin/provider"
)

// Services are what a service may be able to do.
func Services() map[string]provider.Capabilities {
	full := provider.Capabilities{Mint: true, List: true, Named: true, Test: true, Revoke: true, Overlap: true}
	with := func(change func(*provider.Capabilities)) provider.Capabilities { c := full; change(&c); return c }
	return map[string]provider.Capabilities{
		"list and test":                full,
		"list":                         with(func(c *provider.Capabilities) { c.Test = false }),
		"no names":                     with(func(c *provider.Capabilities) { c.Named = false }),
		"test":                         with(func(c *provider.Capabilities) { c.List, c.Named = false, false }),
		"neither":                      with(func(c *provider.Capabilities) { c.List, c.Named, c.Test = false, false, false }),
		"no overlap":                   with(func(c *provider.Capabilities) { c.Overlap = false }),
		"no overlap nor test":          with(func(c *provider.Capabilities) { c.Overlap, c.Test = false, false }),
		"no overlap nor list nor test": with(func(c *provider.Capabilities) { c.Overlap, c.List, c.Named, c.Test = false, false, false, false }),
		"two keys":                     with(func(c *provider.Capabilities) { c.MaxKeys = 2 }),
	}
}

// Table is what docs/providers.md has, too, in its words.
func Table() map[string]Lies {
	return map[string]Lies{
		"nothing: it is honest":                                             {},
		"the answer to a create never comes":                                {NoAnswer: true},
		"429 after the key was made":                                        {AfterMade: provider.KindRateLimited},
		"503 after the key was made":                                        {AfterMade: provider.KindTransient},
		"401 after the key was made":                                        {AfterMade: provider.KindUnauthorized},
		"409 after the key was made":                                        {AfterMade: provider.KindRejected},
		"a proxy repeats the create":                                        {Twin: true},
		"a create answers with the key before":                              {OldKey: true},
		"a create changes the key before in place":                          {InPlace: true},
		"every key has the same id":                                         {SameID: true},
		"a new key is listed after ten minutes":                             {ListLag: 10 * time.Minute},
		"a new key is listed after ten minutes, and the answer never comes": {ListLag: 10 * time.Minute, NoAnswer: true},
		"an empty page in the middle of the list":                           {HalfLists: true},
		"an empty page, and the answer never comes":                         {HalfLists: true, NoAnswer: true},
		"its clock is an hour behind":                                       {ClockOff: -time.Hour},
		"its clock is an hour behind, and the answer never comes":           {ClockOff: -time.Hour, NoAnswer: true},
		"its clock is an hour ahead, and the answer never comes":            {ClockOff: time.Hour, NoAnswer: true},
		"created times are dates, and the answer never comes":               {DateOnly: true, NoAnswer: true},
		"names are cut to 32 bytes":                                         {NameCut: 32},
		"names are cut to 32 bytes, and the answer never comes":             {NameCut: 32, NoAnswer: true},
		"ids are listed in another form":                                    {OtherIDs: true},
		"ids are listed in another form, and a proxy repeats the create":    {OtherIDs: true, Twin: true},
		"ids are listed in another form, and 429 after the key was made":    {OtherIDs: true, AfterMade: provider.KindRateLimited},
		"names are listed in capitals":                                      {Renamed: true},
		"a new key is refused for two minutes":                              {Spread: 2 * time.Minute},
		"a revocation has no effect":                                        {NoEffect: true},
		"a revocation takes twenty minutes":                                 {Late: 20 * time.Minute},
		"a revocation ends another key":                                     {KillsOther: true},
		"a revocation is refused":                                           {NoRevoke: true},
		"a key is expired when it is made":                                  {Life: -time.Hour},
		"a key lives for less than its grace":                               {Life: time.Hour},
		"a key lives for a minute":                                          {Life: time.Minute},
		"a key ends and nobody is told":                                     {SilentLife: 12 * time.Hour},
		"the account takes five keys":                                       {Limit: 5},
		"somebody else makes a key each time":                               {Rival: true},
		"somebody else makes a key each time, and the answer never comes":   {Rival: true, NoAnswer: true},
	}
}

// MaxMintsAnHour bounds the creates of one key in any hour. A failing create is
// tried again after 30 s, 1, 2, 4 … minutes, and some are
// asked for by hand.
const MaxMintsAnHour = 16

// Tellable tells whether what the engine has lost can be told from what others
// have: there is a list, it has the names that were sent, and not two keys of one
// name whose ids it shows otherwise than the create did. Where names are cut within what
// says which installation has made a key, what no intent is open for may be a clone's.
// And a key whose value is refused after its revocation was taken is dead, whatever the
// list shows: services list what they have revoked.
func Tellable(c provider.Capabilities, l Lies) bool {
	unasked := l.Twin || l.AfterMade != 0 || l.ListLag > 0
	return c.List && c.Named && !l.Renamed && !(l.OtherIDs && (l.Twin || l.NameCut > 0)) && !(l.NameCut > 0 && unasked) && !(c.Test && l.NoEffect && (l.InPlace || l.Spread > 0))
}

// And is both: what o does otherwise comes on top.
func (l Lies) And(o Lies) Lies {
	to, from := reflect.ValueOf(&l).Elem(), reflect.ValueOf(o)
	for i := range from.NumField() {
		if !from.Field(i).IsZero() {
			to.Field(i).Set(from.Field(i))
		}
	}
	return l
}

// Faster is the same for who has no hours: what takes its time takes so much less.
// A clock that is wrong stays as wrong as it is.
func (l Lies) Faster(by int) Lies {
	for _, d := range []*time.Duration{&l.ListLag, &l.Spread, &l.Late, &l.Life, &l.SilentLife} {
		*d /= time.Duration(by)
	}
	return l
}
