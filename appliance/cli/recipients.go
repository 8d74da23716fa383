package cli

import "strongroom.example/config/recipient"

// readRecipients takes each argument of --recipient as a recipient or as a file
// of them.
func readRecipients(args []string) ([]recipient.Recipient, error) {
	rs, err := recipient.FromArgs(args)
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: "--recipient takes " + recipient.Forms + ", or a file with such lines"}
	}
	return rs, nil
}
