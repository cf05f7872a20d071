package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// indexHeader names the entry of the meta group as of which a catalogue is.
const indexHeader = "X-Dsdb-Index"

// snapshotWait bounds how long GET /snapshot waits for a change.
const snapshotWait = time.Minute

// serveSnapshot answers GET /snapshot with this node's copy of the catalogue, as
// the bytes of a snapshot file (meta/FORMAT.md), but without the hashes of
// passwords. With index=N it waits until the copy includes more than entry N, and
// says 304 if nothing changes for a minute: whoever repeats this with the index of
// the last answer misses no change.
func (n *Node) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	if text := r.URL.Query().Get("index"); text != "" {
		index, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			http.Error(w, "error parsing index", http.StatusBadRequest) // in the words of InfluxDB 0.10
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), snapshotWait)
		defer cancel()
		defer context.AfterFunc(n.door.stopping, cancel)()
		if n.meta.View().Index <= index && n.meta.Wait(ctx, index+1) != nil {
			w.Header().Set(indexHeader, strconv.FormatUint(n.meta.View().Index, 10))
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	view := n.meta.View()
	h := w.Header()
	h.Set(indexHeader, strconv.FormatUint(view.Index, 10))
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="catalogue-%020d.snap"`, view.Index))
	_, _ = w.Write(view.WithoutHashes().AppendSnapshot(nil)) // the asker may be gone
}
