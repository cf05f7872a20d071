package ql

import (
	"strings"

	"github.com/influxdata/influxql"
)

// Sanitize returns a text with the passwords of CREATE USER and SET PASSWORD
// statements replaced by [REDACTED], also where the text does not parse. It is
// for logs: a text longer than MaxText is cut.
func Sanitize(text string) string {
	if len(text) > MaxText {
		text = strings.ToValidUTF8(text[:MaxText], "")
	}
	return influxql.Sanitize(text)
}
