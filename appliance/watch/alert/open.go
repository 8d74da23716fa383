package alert

import (
	"errors"
	"fmt"

	"strongroom.example/config"
)

// Open opens the ways that a validated table names, and gives the secrets in
// them, so that no journal line can carry these outside. The error is of those
// that could not be opened: they don't silence the others. read gives a
// credential or a file; an empty one stands for one that isn't there.
func Open(conf config.Alert, read func(name string) ([]byte, error)) (ways []Channel, secrets []string, err error) {
	var errs []error
	if conf.WebhookFile != "" {
		hook, known, err := OpenWebhook(conf.WebhookFile, read)
		secrets = append(secrets, known...)
		if err == nil {
			ways = append(ways, hook)
		}
		errs = append(errs, err)
	}
	if conf.Mail.Server != "" {
		mail, known, err := openMail(conf.Mail, read)
		secrets = append(secrets, known...)
		if err == nil {
			ways = append(ways, mail)
		}
		errs = append(errs, err)
	}
	return ways, secrets, errors.Join(errs...)
}

// OpenWebhook opens the webhook whose URL is in a credential or a file. What was
// read is given also where it is no URL, to be hidden.
func OpenWebhook(file string, read func(name string) ([]byte, error)) (*Webhook, []string, error) {
	data, err := read(file)
	if err != nil {
		return nil, nil, err
	}
	secrets := []string{string(data)}
	hook, err := NewWebhook(string(data))
	if err != nil {
		return nil, secrets, fmt.Errorf("webhook file %q: %w", file, err)
	}
	return hook, secrets, nil
}

func openMail(conf config.AlertMail, read func(name string) ([]byte, error)) (*Mail, []string, error) {
	var user, password string
	var secrets []string
	if conf.Credentials != "" {
		data, err := read(conf.Credentials)
		if err != nil {
			return nil, nil, err
		}
		if user, password, err = config.DecodePair(conf.Credentials, data, "username", "password"); err != nil {
			return nil, nil, err
		}
		secrets = append(secrets, password)
	}
	mail, err := NewMail(conf, user, password)
	return mail, secrets, err
}
