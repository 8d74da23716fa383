package alert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/pause"
	"strongroom.example/config"
)

const canary = "Tr0ub4dor-and-3"

var event = Event{
	Unit: "strongroom-snapshot.service", Host: "vault-1", Result: "exit-code", Status: "3",
	At: time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC), Lines: []string{"the bucket is full – sehr", "."},
}

func (s *mailServer) conf(security string) config.AlertMail {
	return config.AlertMail{Server: s.addr, From: "vault@example.com", To: []string{"a@example.com", "b@example.com"}, Security: security, CAFile: s.caFile}
}

func TestMail(t *testing.T) {
	for name, tc := range map[string]struct {
		server   *mailServer
		security string
		user     string
		encrypts bool
	}{
		"STARTTLS":            {&mailServer{}, config.MailStartTLS, "", true},
		"TLS from the start":  {&mailServer{implicitTLS: true}, config.MailTLS, "", true},
		"plain, on this host": {&mailServer{noStartTLS: true}, config.MailPlain, "", false},
		"AUTH PLAIN":          {&mailServer{auth: "LOGIN PLAIN"}, config.MailStartTLS, "me", true},
		"AUTH LOGIN":          {&mailServer{auth: "LOGIN", implicitTLS: true}, config.MailTLS, "me", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.server
			s.user, s.password = tc.user, canary
			startMail(t, s)
			m, err := NewMail(s.conf(tc.security), tc.user, canary)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Send(t.Context(), event); err != nil {
				t.Fatal(err)
			}
			if len(s.got) != 1 {
				t.Fatalf("%d mails", len(s.got))
			}
			got := s.got[0]
			if got.from != "vault@example.com" || strings.Join(got.to, " ") != "a@example.com b@example.com" || got.tls != tc.encrypts || got.user != tc.user {
				t.Errorf("%+v", got)
			}
			msg, err := mail.ReadMessage(strings.NewReader(got.data))
			if err != nil {
				t.Fatal(err)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
			if err != nil || subject != "strongroom on vault-1: strongroom-snapshot failed (exit-code 3)" {
				t.Errorf("subject %q, %v", subject, err)
			}
			if at, err := msg.Header.Date(); err != nil || !at.Equal(event.At) {
				t.Errorf("date %v, %v", at, err)
			}
			body, err := io.ReadAll(quotedprintable.NewReader(msg.Body))
			if err != nil || !strings.Contains(string(body), "  the bucket is full – sehr\n  .\n") {
				t.Errorf("body %q, %v", body, err)
			}
			if tc.encrypts && strings.Contains(strings.Join(s.clear, ""), "MAIL FROM") {
				t.Errorf("in clear: %q", s.clear)
			}
		})
	}
}

func TestMailFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		server   *mailServer
		security string
		conf     func(*config.AlertMail)
		says     string
		final    bool // no use in trying again
	}{
		"no STARTTLS":          {&mailServer{noStartTLS: true}, config.MailStartTLS, nil, "offers no STARTTLS", true},
		"unknown authority":    {&mailServer{}, config.MailStartTLS, func(c *config.AlertMail) { c.CAFile = "" }, "certificate", false},
		"wrong password":       {&mailServer{auth: "PLAIN", password: "other"}, config.MailStartTLS, nil, "authentication failed", true},
		"recipient refused":    {&mailServer{refuse: map[string]string{"RCPT": "550 no such user"}, refuseTimes: 2, auth: "PLAIN", password: canary}, config.MailStartTLS, nil, `"a@example.com"`, true},
		"greylisted":           {&mailServer{refuse: map[string]string{"RCPT": "451 later"}, refuseTimes: 2, auth: "PLAIN", password: canary}, config.MailStartTLS, nil, "later", false},
		"nobody there":         {&mailServer{}, config.MailStartTLS, func(c *config.AlertMail) { c.Server = "127.0.0.1:1" }, "refused", false},
		"password in clear":    {&mailServer{noStartTLS: true, password: canary}, config.MailPlain, func(c *config.AlertMail) { c.Server = strings.Replace(c.Server, "127.0.0.1", "127.0.0.2", 1) }, "", false},
		"another name in cert": {&mailServer{}, config.MailStartTLS, func(c *config.AlertMail) { c.Server = strings.Replace(c.Server, "127.0.0.1", "localhost", 1) }, "certificate", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.server
			s.user = "me"
			startMail(t, s)
			conf := s.conf(tc.security)
			if tc.conf != nil {
				tc.conf(&conf)
			}
			m, err := NewMail(conf, "me", canary)
			if err != nil {
				t.Fatal(err)
			}
			err = m.Send(t.Context(), event)
			if err == nil || !strings.Contains(err.Error(), tc.says) || errors.Is(err, ErrRefused) != tc.final {
				t.Errorf("error %v (final %t), want %q (final %t)", err, errors.Is(err, ErrRefused), tc.says, tc.final)
			}
			if err != nil && strings.Contains(err.Error(), canary) || strings.Contains(strings.Join(s.clear, ""), canary) {
				t.Error("the password is shown")
			}
			if len(s.got) != 0 {
				t.Errorf("sent all the same: %+v", s.got)
			}
		})
	}
}

// One dead mailbox silences no other: those that the server takes get it, once, and that
// counts as told. Who is to be asked later is asked again, alone.
func TestMailToTheOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		times  int
		want   []string // the recipients of each message
		part   bool
	}{
		"one is dead":          {"550 no such user", 1, []string{"[b@example.com]"}, true},
		"one is greylisted":    {"451 later", 1, []string{"[b@example.com]", "[a@example.com]"}, false},
		"both are greylisted":  {"451 later", 2, []string{"[a@example.com b@example.com]"}, false},
		"one is full for good": {"452 full", 1 << 20, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &mailServer{refuse: map[string]string{"RCPT": tt.answer}, refuseTimes: tt.times}
			startMail(t, s)
			m, err := NewMail(s.conf(config.MailStartTLS), "", "")
			if err != nil {
				t.Fatal(err)
			}
			told, err := Send(t.Context(), event, []Channel{m}, func(context.Context, time.Duration) error { return nil })
			if errors.Is(err, ErrPartly) != tt.part || (told == 1) != (len(tt.want) > 0) {
				t.Errorf("%d, %v", told, err)
			}
			var got []string
			ids := map[string]bool{}
			for _, m := range s.got {
				got = append(got, fmt.Sprint(m.to))
				_, rest, _ := strings.Cut(m.data, "Message-ID: ")
				id, _, _ := strings.Cut(rest, "\r\n")
				ids[id] = true
			}
			if !slices.Equal(got, tt.want) || len(ids) > 1 {
				t.Errorf("messages to %q with the ids %v, want %q", got, ids, tt.want)
			}
		})
	}
}

func TestSendTriesAgain(t *testing.T) {
	s := &mailServer{refuse: map[string]string{"MAIL": "421 busy"}, refuseTimes: 2}
	startMail(t, s)
	m, err := NewMail(s.conf(config.MailStartTLS), "", "")
	if err != nil {
		t.Fatal(err)
	}
	var waited []time.Duration
	told, err := Send(t.Context(), event, []Channel{m}, func(_ context.Context, d time.Duration) error {
		waited = append(waited, d)
		return nil
	})
	if err != nil || told != 1 || len(s.got) != 1 || len(waited) != 2 || waited[1] <= waited[0] {
		t.Errorf("told %d, %v; %d mails, waited %v", told, err, len(s.got), waited)
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	s := &mailServer{refuse: map[string]string{"MAIL": "421 busy"}, refuseTimes: 100}
	startMail(t, s)
	m, err := NewMail(s.conf(config.MailStartTLS), "", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, err := Send(ctx, event, []Channel{m}, func(ctx context.Context, _ time.Duration) error {
		cancel()
		return pause.For(ctx, time.Hour)
	})
	if told != 0 || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("told %d, %v", told, err)
	}
}
