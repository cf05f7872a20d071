package lineproto

import (
	"fmt"
	"math"
	"strconv"

	"github.com/dasudian/dsdb"
)

// pow10 are the powers of ten that a float64 holds exactly.
var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// decimalBits returns the float64 bits of a decimal without exponent. m holds
// its digits, of which there are n, fraction of them after the point; m may
// have overflowed if n > 15. With at most 15 digits numerator and denominator
// are exact, so that one division rounds correctly.
func decimalBits(text []byte, m uint64, n, fraction int) (uint64, bool) {
	if n <= 15 {
		f := float64(m)
		if fraction > 0 {
			f /= pow10[fraction]
		}
		if text[0] == '-' {
			f = -f
		}
		return math.Float64bits(f), true
	}
	f, err := strconv.ParseFloat(string(text), 64)
	return math.Float64bits(f), err == nil
}

// parseNumber reads a number as InfluxDB does: the text up to the next comma
// or space, of which the first byte is a digit, '.', '-', 'n' or 'N'. at says
// where in tok reading stopped.
func parseNumber(tok []byte, unsigned bool) (bits uint64, typ dsdb.FieldType, at int, err error) {
	shape, at, err := scanNumber(tok)
	if err != nil {
		return 0, 0, at, err
	}
	last := len(tok) - 1
	switch shape.suffix {
	case 'i':
		n, err := strconv.ParseInt(string(tok[:last]), 10, 64)
		if err != nil {
			err = fmt.Errorf("unable to parse integer %s: %s", tok[:last], err)
		}
		return uint64(n), dsdb.Integer, at, err
	case 'u':
		if !unsigned || tok[0] == '-' {
			return 0, 0, at, errInvalidNumber
		}
		n, err := strconv.ParseUint(string(tok[:last]), 10, 64)
		if err != nil {
			err = fmt.Errorf("unable to parse unsigned %s: %s", tok[:last], err)
		}
		return n, dsdb.Unsigned, at, err
	}
	f, err := strconv.ParseFloat(string(tok), 64)
	if err != nil {
		err = errInvalidFloat
	}
	return math.Float64bits(f), dsdb.Float, at, err
}

// numberShape is what a number consists of.
type numberShape struct {
	suffix          byte // 'i', 'u' or 0
	point, exponent bool
}

// scanNumber checks that tok has the bytes of a number. Whether they make one
// is strconv's to say.
func scanNumber(tok []byte) (numberShape, int, error) {
	var s numberShape
	digits := len(tok)
	if tok[0] == '-' {
		digits--
	}
	for i := len(tok) - digits; i < len(tok); i++ {
		switch b := tok[i]; {
		case b-'0' <= 9:
		case b == '.' && !s.point:
			s.point = true
		case (b == 'i' || b == 'u') && i > 0 && s.suffix == 0:
			s.suffix = b
		case (b == 'e' || b == 'E') && i > 0:
			s.exponent = true
		case (b == '+' || b == '-') && i > 0 && tok[i-1]|0x20 == 'e':
		default:
			return s, i, errInvalidNumber
		}
	}
	if s.suffix == 'i' {
		digits--
	}
	if s.point {
		digits--
	}
	if s.suffix != 0 && (s.point || s.exponent || tok[len(tok)-1] != s.suffix) || digits == 0 {
		return s, len(tok), errInvalidNumber
	}
	return s, len(tok), nil
}

// parseBoolean reads the spellings of a boolean that InfluxDB takes.
func parseBoolean(tok []byte) (uint64, bool) {
	switch string(tok) {
	case "t", "T", "true", "True", "TRUE":
		return 1, true
	case "f", "F", "false", "False", "FALSE":
		return 0, true
	}
	return 0, false
}

// scaleTime turns a timestamp in units of unit nanoseconds, unit > 1, into
// nanoseconds; it reports whether that is a time a point may have.
func scaleTime(t, unit int64) (int64, bool) {
	if t > dsdb.MaxTime/unit || t < dsdb.MinTime/unit {
		return 0, false
	}
	return t * unit, true
}
