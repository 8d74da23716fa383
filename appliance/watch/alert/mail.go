package alert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/config"
)

// Mail tells by e-mail through a server.
type Mail struct {
	conf               config.AlertMail
	username, password string
	tls                *tls.Config
	host               string // the server's name
	// told are the recipients that have a message, each after its id.
	told map[string]bool
}

var _ Channel = (*Mail)(nil)

// mailTimeout is that of one try.
const mailTimeout = 30 * time.Second

// NewMail is for a table that has been validated; username may be empty.
func NewMail(conf config.AlertMail, username, password string) (*Mail, error) {
	host, _, err := net.SplitHostPort(conf.Server)
	if err != nil {
		return nil, fmt.Errorf("mail server %q: %w", conf.Server, err)
	}
	m := &Mail{told: map[string]bool{}, conf: conf, username: username, password: password, host: host,
		tls: &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}}
	if conf.CAFile != "" {
		pem, err := atomicfile.ReadSmall(conf.CAFile, atomicfile.MaxSmall)
		if err != nil {
			return nil, fmt.Errorf("mail server's authority: %w", err)
		}
		m.tls.RootCAs = x509.NewCertPool()
		if !m.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("mail server's authority: %q holds no PEM certificate", conf.CAFile)
		}
	}
	return m, nil
}

// Name implements Channel.
func (m *Mail) Name() string { return "mail server " + m.conf.Server }

// Send implements Channel. Answers from 500 on are ErrRefused.
func (m *Mail) Send(ctx context.Context, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, mailTimeout)
	defer cancel()
	err := m.send(ctx, e)
	var answer *textproto.Error
	if errors.As(err, &answer) && answer.Code >= 500 && !errors.Is(err, ErrPartly) && !errors.Is(err, errLater) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

func (m *Mail) send(ctx context.Context, e Event) error {
	message, err := m.message(e)
	if err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", m.conf.Server)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if m.conf.Security == config.MailTLS {
		conn = tls.Client(conn, m.tls)
	}
	c, err := smtp.NewClient(conn, m.host)
	if err != nil {
		return err
	}
	if err := m.login(c, e.Host); err != nil {
		return err
	}
	if err := c.Mail(m.conf.From); err != nil {
		return err
	}
	// One dead mailbox silences no other, nor does one that wants to be asked later.
	var taken []string
	var left error
	for _, to := range m.conf.To {
		if m.told[messageID(e)+to] {
			continue
		}
		err := c.Rcpt(to)
		var answer *textproto.Error
		switch {
		case err == nil:
			taken = append(taken, to)
			continue
		case !errors.As(err, &answer) || answer.Code == 421:
			return fmt.Errorf("recipient %q: %w", to, err) // the connection has ended
		case answer.Code < 500:
			left = errors.Join(left, errLater)
		}
		left = errors.Join(left, fmt.Errorf("recipient %q: %w", to, err))
	}
	if len(taken) == 0 {
		if len(m.told) > 0 && left != nil {
			return fmt.Errorf("%w: %w", ErrPartly, left)
		}
		return left
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(message); err != nil {
		return err
	}
	// The commit point: the server has taken it.
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // the message is on its way
	for _, to := range taken {
		m.told[messageID(e)+to] = true
	}
	if left != nil {
		return fmt.Errorf("%w: %w", ErrPartly, left)
	}
	return nil
}

// errLater is of a recipient who may be told with the next try.
var errLater = errors.New("later")

// messageID is one for an event, however often it is tried: a server that has taken it
// and did not say so delivers it once.
func messageID(e Event) string {
	id := sha256.Sum256(fmt.Append(nil, e.Host, "\n", e.Unit, "\n", failureOf(e), "\n", e.At.UnixNano()))
	return hex.EncodeToString(id[:12])
}

// login says hello, encrypts, and authenticates; never in clear over a network.
func (m *Mail) login(c *smtp.Client, host string) error {
	if !strings.ContainsAny(host, " \r\n<>") && host != "" {
		if err := c.Hello(host); err != nil {
			return err
		}
	}
	if m.conf.Security == config.MailStartTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return fmt.Errorf("%w: it offers no STARTTLS", ErrRefused)
		}
		if err := c.StartTLS(m.tls); err != nil {
			return err
		}
	}
	if m.username == "" {
		return nil
	}
	_, offered := c.Extension("AUTH")
	var auth smtp.Auth = smtp.PlainAuth("", m.username, m.password, m.host)
	if fields := strings.Fields(strings.ToUpper(offered)); !slices.Contains(fields, "PLAIN") && slices.Contains(fields, "LOGIN") {
		auth = &loginAuth{m.username, m.password}
	}
	if err := c.Auth(auth); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	return nil
}

// loginAuth is the mechanism LOGIN, which some servers have in place of PLAIN:
// https://datatracker.ietf.org/doc/html/draft-murchison-sasl-login-00.
type loginAuth struct{ username, password string }

func (a *loginAuth) Start(server *smtp.ServerInfo) (string, []byte, error) {
	if !server.TLS {
		return "", nil, errors.New("the connection is not encrypted")
	}
	return "LOGIN", nil, nil
}

func (a *loginAuth) Next(question []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	if strings.HasPrefix(strings.ToLower(string(question)), "user") {
		return []byte(a.username), nil
	}
	return []byte(a.password), nil
}

// message is RFC 5322's, text only.
func (m *Mail) message(e Event) ([]byte, error) {
	_, domain, _ := strings.Cut(m.conf.From, "@")
	var b bytes.Buffer
	for _, h := range [][2]string{
		{"From", m.conf.From},
		{"To", strings.Join(m.conf.To, ", ")},
		{"Subject", mime.QEncoding.Encode("utf-8", oneLine(e.Subject()))},
		{"Date", e.At.Format(time.RFC1123Z)},
		{"Message-ID", "<" + messageID(e) + "@" + domain + ">"},
		{"Auto-Submitted", "auto-generated"}, // RFC 3834: no holiday notes in answer
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	if _, err := q.Write([]byte(e.Text())); err != nil {
		return nil, err
	}
	if err := q.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// oneLine keeps a header from becoming two.
func oneLine(s string) string { return strings.NewReplacer("\r", " ", "\n", " ").Replace(s) }
