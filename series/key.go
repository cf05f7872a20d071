package series

import (
	"bytes"
	"strings"
	"unsafe"
)

// cut cuts b at the first sep that does not follow a backslash, as
// dsdb.ParseSeriesKey does; both parts alias b.
func cut(b []byte, sep byte) (before, after []byte) {
	i := bytes.IndexByte(b, sep)
	if i < 0 {
		return b, nil
	}
	if bytes.IndexByte(b[:i], '\\') < 0 {
		return b[:i], b[i+1:]
	}
	for i, c := range b {
		if c == sep && (i == 0 || b[i-1] != '\\') {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// text returns b without the backslashes that escape a byte of special. The
// string aliases b if there are none: b must never change.
func text(b []byte, special string) string {
	if len(b) == 0 {
		return ""
	}
	if bytes.IndexByte(b, '\\') < 0 {
		return unsafe.String(&b[0], len(b))
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) && strings.IndexByte(special, b[i+1]) >= 0 {
			i++
		}
		out = append(out, b[i])
	}
	return string(out)
}

// equalUnescaped reports whether b, escaped as a measurement, stands for name.
func equalUnescaped(b []byte, name string) bool {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b) == name
	}
	return text(b, ", ") == name
}
