package dsdb

import (
	"fmt"
	"sort"
	"strings"
)

// FieldType is the type of the values of a field, and of a column of a result.
type FieldType uint8

// The field types that InfluxDB knows. Time is the type of result columns
// only. NoType is the type of a column that holds nothing but nulls.
const (
	NoType FieldType = iota
	Float
	Integer
	Unsigned
	Boolean
	String
	Time
)

var fieldTypeNames = [...]string{"", "float", "integer", "unsigned", "boolean", "string", "time"}

// String returns InfluxDB's name of the type as SHOW FIELD KEYS prints it.
func (t FieldType) String() string {
	if int(t) < len(fieldTypeNames) {
		return fieldTypeNames[t]
	}
	return fmt.Sprintf("FieldType(%d)", uint8(t))
}

// Tag is one tag of a series, unescaped.
type Tag struct{ Key, Value string }

// Tags are the tags of a series, sorted by key, without duplicates and without empty values.
type Tags []Tag

// Get returns the value of key, or "" if the series has no such tag.
func (t Tags) Get(key string) string {
	i := sort.Search(len(t), func(i int) bool { return t[i].Key >= key })
	if i < len(t) && t[i].Key == key {
		return t[i].Value
	}
	return ""
}

// AppendSeriesKey appends the canonical key of a series: measurement and
// sorted tags, escaped as in line protocol. Equal series have equal keys.
func AppendSeriesKey(dst []byte, measurement string, tags Tags) []byte {
	dst = appendEscaped(dst, measurement, ", ")
	for _, t := range tags {
		dst = append(dst, ',')
		dst = appendEscaped(dst, t.Key, ",= ")
		dst = append(dst, '=')
		dst = appendEscaped(dst, t.Value, ",= ")
	}
	return dst
}

func appendEscaped(dst []byte, s, special string) []byte {
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(special, s[i]) >= 0 {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return dst
}

// ParseSeriesKey splits a canonical series key into its measurement and tags.
// It reports KindInvalid if the key is not one that AppendSeriesKey makes.
func ParseSeriesKey(key []byte) (measurement string, tags Tags, err error) {
	m, rest := cutUnescaped(key, ',')
	measurement = unescape(m, ", ")
	for rest != nil {
		var kv []byte
		kv, rest = cutUnescaped(rest, ',')
		k, v := cutUnescaped(kv, '=')
		if v == nil {
			return "", nil, Errorf(KindInvalid, "series key %q: tag without value", key)
		}
		tags = append(tags, Tag{unescape(k, ",= "), unescape(v, ",= ")})
	}
	return measurement, tags, nil
}

// cutUnescaped cuts b at the first sep that no backslash precedes; after is
// nil if there is none. Backslashes are not escaped themselves, so one before
// another does not take it out of effect.
func cutUnescaped(b []byte, sep byte) (before, after []byte) {
	for i := range b {
		if b[i] == sep && (i == 0 || b[i-1] != '\\') {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// unescape removes the backslash before each byte of special; any other
// backslash stands for itself, as in line protocol.
func unescape(b []byte, special string) string {
	if !strings.Contains(string(b), `\`) {
		return string(b)
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
