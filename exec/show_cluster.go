package exec

import (
	"time"

	"github.com/dasudian/dsdb"
)

// showServers lists the nodes of one role (columns as InfluxDB 0.10).
func showServers(name string, rows []ServerRow) showTable {
	t := showTable{name: name}
	var ids []int64
	var http, tcp []string
	for _, r := range rows {
		ids = append(ids, int64(r.ID))
		http = append(http, r.HTTPAddr)
		tcp = append(tcp, r.TCPAddr)
	}
	t.addInts("id", dsdb.Integer, ids)
	t.addStrings("http_addr", http)
	t.addStrings("tcp_addr", tcp)
	return t
}

// showProcesses lists how the processes of the cluster are.
func showProcesses(rows []ProcessRow) showTable {
	t := showTable{name: "cluster"}
	ints := func(name string, value func(*ProcessRow) int64) {
		col := make([]int64, len(rows))
		for i := range rows {
			col[i] = value(&rows[i])
		}
		t.addInts(name, dsdb.Integer, col)
	}
	strs := func(name string, value func(*ProcessRow) string) {
		col := make([]string, len(rows))
		for i := range rows {
			col[i] = value(&rows[i])
		}
		t.addStrings(name, col)
	}
	ints("meta_id", func(r *ProcessRow) int64 { return int64(r.MetaID) })
	ints("data_id", func(r *ProcessRow) int64 { return int64(r.DataID) })
	strs("tcp_addr", func(r *ProcessRow) string { return r.TCPAddr })
	strs("status", func(r *ProcessRow) string { return r.Status })
	strs("role", func(r *ProcessRow) string { return r.Role })
	ints("shards", func(r *ProcessRow) int64 { return int64(r.Shards) })
	ints("leads", func(r *ProcessRow) int64 { return int64(r.Leads) })
	ints("witnesses", func(r *ProcessRow) int64 { return int64(r.Witnesses) })
	ints("lag", func(r *ProcessRow) int64 { return int64(r.Lag) })
	ints("disk_used", func(r *ProcessRow) int64 { return r.DiskUsed })
	ints("disk_free", func(r *ProcessRow) int64 { return r.DiskFree })
	strs("version", func(r *ProcessRow) string { return r.Version })
	strs("authenticated", func(r *ProcessRow) string { return r.Authenticated })
	strs("last_seen", func(r *ProcessRow) string {
		if r.LastSeen == 0 {
			return ""
		}
		return time.Unix(0, r.LastSeen).UTC().Format(time.RFC3339)
	})
	return t
}
