package planner

import (
	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// toDataType are the parser's names of our types.
var toDataType = [...]influxql.DataType{
	dsdb.NoType: influxql.Unknown, dsdb.Float: influxql.Float, dsdb.Integer: influxql.Integer,
	dsdb.Unsigned: influxql.Unsigned, dsdb.Boolean: influxql.Boolean, dsdb.String: influxql.String,
	dsdb.Time: influxql.Time,
}

// fieldType is our type for the parser's; NoType for what no field can have.
func fieldType(t influxql.DataType) dsdb.FieldType {
	switch t {
	case influxql.Float:
		return dsdb.Float
	case influxql.Integer:
		return dsdb.Integer
	case influxql.Unsigned:
		return dsdb.Unsigned
	case influxql.Boolean:
		return dsdb.Boolean
	case influxql.String, influxql.Tag:
		return dsdb.String
	}
	return dsdb.NoType
}
