package lineproto

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dasudian/dsdb"
)

// The words of InfluxDB 1.x.
var (
	errMissingMeasurement = errors.New("missing measurement")
	errMissingFields      = errors.New("missing fields")
	errMissingTagKey      = errors.New("missing tag key")
	errMissingTagValue    = errors.New("missing tag value")
	errInvalidTagFormat   = errors.New("invalid tag format")
	errDuplicateTags      = errors.New("duplicate tags")
	errMissingFieldKey    = errors.New("missing field key")
	errMissingFieldValue  = errors.New("missing field value")
	errInvalidFieldFormat = errors.New("invalid field format")
	errUnbalancedQuotes   = errors.New("unbalanced quotes")
	errInvalidNumber      = errors.New("invalid number")
	errInvalidFloat       = errors.New("invalid float")
	errInvalidBoolean     = errors.New("invalid boolean")
	errBadTimestamp       = errors.New("bad timestamp")
	errInvalidPoint       = errors.New("point is invalid")
	errTimeRange          = fmt.Errorf("time outside range %d - %d", dsdb.MinTime, dsdb.MaxTime)
)

// keySpans are the parts of a raw prefix (measurement and tags).
type keySpans struct {
	measurement int // its end
	tags        []tagSpan
	end         int // of the prefix: the space after it, or the end of the line
}

type tagSpan struct{ key, equals, end int }

// scanKey splits the measurement and the tags at the start of line, which has
// no leading white space. A byte after a backslash never separates. The spans
// are kept in k's memory. The int says where reading stopped.
func (k *keySpans) scanKey(line []byte) (int, error) {
	k.tags = k.tags[:0]
	if len(line) == 0 || line[0] == ',' {
		return 0, errMissingMeasurement
	}
	i := 1
	for i < len(line) && (line[i] != ',' && line[i] != ' ' || line[i-1] == '\\') {
		i++
	}
	k.measurement, k.end = i, i
	for i < len(line) && line[i] == ',' {
		span, err := scanTag(line, i+1)
		i = span.end
		if err != nil {
			return i, err
		}
		k.tags = append(k.tags, span)
	}
	k.end = i
	if i == len(line) {
		return i, errMissingFields
	}
	return i, nil
}

// scanTag reads one key=value; on an error the end of the span is where.
func scanTag(line []byte, i int) (tagSpan, error) {
	s := tagSpan{key: i}
	if i >= len(line) || line[i] == ' ' || line[i] == ',' || line[i] == '=' {
		s.end = i
		return s, errMissingTagKey
	}
	for i++; i >= len(line) || line[i] != '=' || line[i-1] == '\\'; i++ {
		if i >= len(line) || (line[i] == ' ' || line[i] == ',') && line[i-1] != '\\' {
			s.end = i
			return s, errMissingTagValue
		}
	}
	s.equals = i
	i++
	if i >= len(line) || line[i] == ',' || line[i] == ' ' {
		s.end = i
		return s, errMissingTagValue
	}
	for i++; i < len(line) && (line[i] != ',' && line[i] != ' ' || line[i-1] == '\\'); i++ {
		if line[i] == '=' && line[i-1] != '\\' {
			s.end = i
			return s, errInvalidTagFormat
		}
	}
	s.end = i
	if i == len(line) {
		return s, errMissingFields
	}
	return s, nil
}

// canonical reports whether the raw prefix is its own canonical key, and
// whether it has a tag named time. It fails if a tag key comes twice.
func (k *keySpans) canonical(line []byte) (same, timeTag bool, err error) {
	same = bytes.IndexByte(line[:k.end], '\\') < 0
	sorted := true
	for i, t := range k.tags {
		name := line[t.key:t.equals]
		timeTag = timeTag || string(name) == "time"
		same = same && line[t.equals+1] != '=' // t==x: its value =x is escaped in the canonical key
		if i > 0 {
			before := k.tags[i-1]
			switch bytes.Compare(line[before.key:before.equals], name) {
			case 0:
				return false, false, errDuplicateTags
			case 1:
				sorted = false
			}
		}
	}
	if !sorted {
		err = k.distinct(line)
	}
	return same && sorted, timeTag, err
}

// distinct fails if two tags, which need not be neighbours, have one key. It sorts the tags.
func (k *keySpans) distinct(line []byte) error {
	key := func(t tagSpan) []byte { return line[t.key:t.equals] }
	slices.SortFunc(k.tags, func(a, b tagSpan) int { return bytes.Compare(key(a), key(b)) })
	for i := 1; i < len(k.tags); i++ {
		if bytes.Equal(key(k.tags[i-1]), key(k.tags[i])) {
			return errDuplicateTags
		}
	}
	return nil
}

// appendCanonical appends the canonical key of the prefix.
func (k *keySpans) appendCanonical(dst, line []byte) []byte {
	tags := make(dsdb.Tags, len(k.tags))
	for i, t := range k.tags {
		tags[i] = dsdb.Tag{
			Key:   string(appendUnescaped(nil, line[t.key:t.equals], tagEscapes)),
			Value: string(appendUnescaped(nil, line[t.equals+1:t.end], tagEscapes)),
		}
	}
	slices.SortFunc(tags, func(a, b dsdb.Tag) int { return strings.Compare(a.Key, b.Key) })
	return dsdb.AppendSeriesKey(dst, string(k.name(nil, line)), tags)
}

// name appends the unescaped measurement.
func (k *keySpans) name(dst, line []byte) []byte {
	return appendUnescaped(dst, line[:k.measurement], measurementEscapes)
}

// What a backslash may stand before; before any other byte it is itself.
const (
	measurementEscapes = ",= "
	tagEscapes         = ",= "
	fieldKeyEscapes    = ",= \""
	stringEscapes      = "\"\\"
)

// appendUnescaped appends src without the backslashes before bytes of special.
func appendUnescaped(dst, src []byte, special string) []byte {
	for {
		i := bytes.IndexByte(src, '\\')
		if i < 0 || i+1 == len(src) {
			return append(dst, src...)
		}
		dst = append(dst, src[:i]...)
		if strings.IndexByte(special, src[i+1]) < 0 {
			dst = append(dst, '\\')
			src = src[i+1:]
			continue
		}
		dst = append(dst, src[i+1])
		src = src[i+2:]
	}
}
