package main

import (
	"errors"
	"strings"
)

// cutName reads one identifier off the front of text: bare, up to a dot or a
// space, or in double quotes, where a backslash takes the next byte as it is.
func cutName(text string) (name, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, ". \t")
		if end < 0 {
			end = len(text)
		}
		return text[:end], text[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:], nil
		case text[i] == '\\' && i+1 < len(text):
			i++
		}
		b.WriteByte(text[i])
	}
	return "", "", errors.New("a quote is never closed: " + text)
}

// cutNames reads NAME or NAME.NAME off the front of text; second is "" if
// there is only one. rest is what follows, without spaces around it.
func cutNames(text string) (first, second, rest string, err error) {
	first, rest, err = cutName(text)
	if err == nil && strings.HasPrefix(rest, ".") {
		second, rest, err = cutName(rest[1:])
	}
	return first, second, strings.TrimSpace(rest), err
}
