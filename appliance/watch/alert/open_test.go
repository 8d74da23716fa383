package alert

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"strongroom.example/config"
)

// A way that can't be opened silences no other, and what was read of it is known
// as a secret all the same.
func TestOpen(t *testing.T) {
	const hook, login = "https://h.example/" + canary, "username = \"me\"\npassword = \"" + canary + "\"\n"
	mail := config.AlertMail{Server: "mail.example:25", From: "a@b.c", To: []string{"a@b.c"}, Credentials: "login"}
	open := mail
	open.Credentials = ""
	spoilt := mail
	spoilt.CAFile = "/no/such/file"
	for name, tc := range map[string]struct {
		conf  config.Alert
		files map[string]string
		ways  string
		known int
		says  string
	}{
		"nobody":             {config.Alert{}, nil, "", 0, ""},
		"both":               {config.Alert{WebhookFile: "hook", Mail: mail}, map[string]string{"hook": hook, "login": login}, "webhook at h.example, mail server mail.example:25", 2, ""},
		"a mail for all":     {config.Alert{Mail: open}, nil, "mail server mail.example:25", 0, ""},
		"an empty webhook":   {config.Alert{WebhookFile: "hook", Mail: mail}, map[string]string{"hook": "\n", "login": login}, "mail server mail.example:25", 2, `webhook file "hook": want one line`},
		"a spoilt webhook":   {config.Alert{WebhookFile: "hook"}, map[string]string{"hook": canary}, "", 1, `webhook file "hook"`},
		"no webhook there":   {config.Alert{WebhookFile: "hook", Mail: mail}, map[string]string{"login": login}, "mail server mail.example:25", 1, "not exist"},
		"no login there":     {config.Alert{WebhookFile: "hook", Mail: mail}, map[string]string{"hook": hook}, "webhook at h.example", 1, "not exist"},
		"a spoilt login":     {config.Alert{WebhookFile: "hook", Mail: mail}, map[string]string{"hook": hook, "login": canary}, "webhook at h.example", 1, "login"},
		"no authority there": {config.Alert{Mail: spoilt}, map[string]string{"login": login}, "", 1, "authority"},
	} {
		t.Run(name, func(t *testing.T) {
			ways, known, err := Open(tc.conf, func(name string) ([]byte, error) {
				if text, ok := tc.files[name]; ok {
					return []byte(text), nil
				}
				return nil, fs.ErrNotExist
			})
			var names []string
			for _, w := range ways {
				names = append(names, w.Name())
			}
			if got := strings.Join(names, ", "); got != tc.ways || len(known) != tc.known {
				t.Errorf("ways %q, %d secrets", got, len(known))
			}
			if (err == nil) != (tc.says == "") || err != nil && (!strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), canary)) {
				t.Errorf("error %v, want %q", err, tc.says)
			}
			if tc.says == "not exist" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the cause is lost: %v", err)
			}
			if slices.Contains(ways, Channel((*Webhook)(nil))) || slices.Contains(ways, Channel((*Mail)(nil))) {
				t.Error("a way that is none")
			}
		})
	}
}
