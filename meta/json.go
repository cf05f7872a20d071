package meta

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/dasudian/dsdb"
)

// text is a measurement or field name in JSON. Such names may be any bytes:
// one that is not UTF-8, which a JSON string cannot hold, is written as
// {"hex": "…"}.
type text string

func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(map[string]string{"hex": hex.EncodeToString([]byte(t))})
}

func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var wrapped struct {
			Hex string `json:"hex"`
		}
		if err := json.Unmarshal(b, &wrapped); err != nil {
			return err
		}
		raw, err := hex.DecodeString(wrapped.Hex)
		*t = text(raw)
		return err
	}
	return json.Unmarshal(b, (*string)(t))
}

// MarshalJSON writes the field as [name, type].
func (f Field) MarshalJSON() ([]byte, error) {
	return json.Marshal([2]any{text(f.Name), f.Type.String()})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *Field) UnmarshalJSON(b []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("a field is a pair of name and type")
	}
	var typ string
	if err := json.Unmarshal(pair[1], &typ); err != nil {
		return err
	}
	for t := dsdb.Float; t <= dsdb.String; t++ {
		if t.String() == typ {
			f.Type = t
			return json.Unmarshal(pair[0], (*text)(&f.Name))
		}
	}
	return fmt.Errorf("unknown field type %q", typ)
}

type newFieldsJSON struct {
	Measurement text    `json:"m"`
	Times       []int64 `json:"times"`
	Fields      []Field `json:"fields"`
}

// MarshalJSON writes {"m": measurement, "times": […], "fields": […]}.
func (n NewFields) MarshalJSON() ([]byte, error) {
	return json.Marshal(newFieldsJSON{text(n.Measurement), n.Times, n.Fields})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (n *NewFields) UnmarshalJSON(b []byte) error {
	var wire newFieldsJSON
	if err := unmarshalStrict(b, &wire); err != nil {
		return err
	}
	*n = NewFields{string(wire.Measurement), wire.Times, wire.Fields}
	return nil
}

type dropMeasurementJSON struct {
	Database    string `json:"db"`
	Measurement text   `json:"m"`
	Since       uint64 `json:"since,omitempty"`
}

// MarshalJSON writes {"db": database, "m": measurement, "since": index}.
func (c *DropMeasurement) MarshalJSON() ([]byte, error) {
	return json.Marshal(dropMeasurementJSON{c.Database, text(c.Measurement), c.Since})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *DropMeasurement) UnmarshalJSON(b []byte) error {
	var wire dropMeasurementJSON
	if err := unmarshalStrict(b, &wire); err != nil {
		return err
	}
	*c = DropMeasurement{wire.Database, string(wire.Measurement), wire.Since}
	return nil
}

type revokeFieldsJSON struct {
	Database     string `json:"db"`
	Measurements []text `json:"m"`
}

// MarshalJSON writes {"db": database, "m": [measurement, …]}.
func (c *RevokeFields) MarshalJSON() ([]byte, error) {
	wire := revokeFieldsJSON{Database: c.Database}
	for _, m := range c.Measurements {
		wire.Measurements = append(wire.Measurements, text(m))
	}
	return json.Marshal(wire)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *RevokeFields) UnmarshalJSON(b []byte) error {
	var wire revokeFieldsJSON
	if err := unmarshalStrict(b, &wire); err != nil {
		return err
	}
	*c = RevokeFields{Database: wire.Database}
	for _, m := range wire.Measurements {
		c.Measurements = append(c.Measurements, string(m))
	}
	return nil
}

type revocationJSON struct {
	Measurement text   `json:"m"`
	At          uint64 `json:"at"`
}

// MarshalJSON writes {"m": measurement, "at": index}.
func (r Revocation) MarshalJSON() ([]byte, error) {
	return json.Marshal(revocationJSON{text(r.Measurement), r.At})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Revocation) UnmarshalJSON(b []byte) error {
	var wire revocationJSON
	if err := unmarshalStrict(b, &wire); err != nil {
		return err
	}
	*r = Revocation{string(wire.Measurement), wire.At}
	return nil
}
