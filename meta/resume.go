package meta

import "github.com/dasudian/dsdb"

// ResumeCatalogue has the catalogue go on from an earlier state, since its last
// changes are lost with the log of the only node that had them. What is found on
// that node shows some of them: ids that were given out, which are not given again,
// and fields that shards hold.
type ResumeCatalogue struct {
	Shard   dsdb.ShardID     `json:"shard"`   // the highest that is found
	Replica dsdb.ReplicaID   `json:"replica"` // likewise
	Fields  []RegisterFields `json:"fields,omitempty"`
}

func (c *ResumeCatalogue) op() string { return "ResumeCatalogue" }

func (c *ResumeCatalogue) apply(d *Data) error {
	d.Counters.Shard = max(d.Counters.Shard, c.Shard)
	d.Counters.Replica = max(d.Counters.Replica, c.Replica)
	for i := range c.Fields {
		if err := c.Fields[i].apply(d); err != nil {
			return err
		}
	}
	return nil
}
