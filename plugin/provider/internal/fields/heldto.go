package fields

import "time"

// ReadHeldTo reads what a preset was compared with, which is for people:
//
//	held_to         paper (its documentation), specification (the vendor's
//	                published schema or generated client) or live (the service)
//	held_to_date    when, as 2026-11-29
//	held_to_source  what exactly: a module and its version, an address
func ReadHeldTo(m *Map) {
	level := m.OneOf("held_to", "", "", "paper", "specification", "live")
	date := m.String("held_to_date", "", 10)
	source := m.String("held_to_source", "", 500)
	if _, err := time.Parse(time.DateOnly, date); m.Has("held_to_date") && err != nil {
		m.Fail("held_to_date", "%.20q is no date such as 2026-11-29", date)
	}
	if (date == "" || source == "") && level != "" {
		m.Fail("held_to", "needs held_to_date and held_to_source beside it")
	}
}
