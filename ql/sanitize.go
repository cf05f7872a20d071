package ql

import (
	"regexp"
	"strings"
)

// The places where a statement names a password: CREATE USER … WITH PASSWORD
// 'p' and SET PASSWORD FOR u = 'p'. Words may be separated by comments. The
// password may be unquoted, or its quote may not be closed, in a text that
// does not parse.
var (
	createPassword = regexp.MustCompile(`(?is)(with` + gap + `+password` + gap + `*)` + secret)
	setPassword    = regexp.MustCompile(`(?is)(password` + gap + `+for` + gap + `*(?:"(?:[^"\\]|\\.)*"|[^\s"=]+)` + gap + `*=` + gap + `*)` + secret)
)

const (
	gap    = `(?:\s|--[^\n]*\n|/\*.*?\*/)`
	secret = `(?:'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[^\s;'"]+)`
)

// Sanitize returns a text with the passwords of CREATE USER and SET PASSWORD
// statements replaced by [REDACTED], as far as they can be found in a text that
// may not parse. It is for logs: a text longer than MaxText is cut.
func Sanitize(text string) string {
	if len(text) > MaxText {
		text = strings.ToValidUTF8(text[:MaxText], "")
	}
	text = createPassword.ReplaceAllString(text, "${1}[REDACTED]")
	return setPassword.ReplaceAllString(text, "${1}[REDACTED]")
}
