package httpd

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/lineproto"
)

// serveWrite is POST /write.
func (h *Handler) serveWrite(w http.ResponseWriter, r *http.Request, u *User) {
	q := r.URL.Query()
	req := WriteRequest{Database: q.Get("db"), Policy: q.Get("rp"), Consistency: q.Get("consistency")}
	if req.Database == "" {
		writeError(w, http.StatusBadRequest, "database is required")
		return
	}
	switch req.Consistency {
	case "", "any", "one", "quorum", "all":
	default:
		writeError(w, http.StatusBadRequest, "invalid consistency level")
		return
	}
	if _, err := h.gate.permit(r, u, func(u *User) error { return u.mayWrite(req.Database) }); err != nil {
		h.failWrite(w, "auth", err)
		return
	}
	h.write(w, r, &req, q.Get("precision"))
}

// serveWriteV2 is POST /api/v2/write of InfluxDB 2.x clients: the bucket is DB or DB/RP.
func (h *Handler) serveWriteV2(w http.ResponseWriter, r *http.Request, u *User) {
	q := r.URL.Query()
	db, rp, _ := strings.Cut(q.Get("bucket"), "/")
	if db == "" {
		writeError(w, http.StatusNotFound, `bucket "" not found: give bucket=DATABASE or bucket=DATABASE/RETENTION_POLICY`)
		return
	}
	precision, err := v2Precision(q)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if _, err := h.gate.permit(r, u, func(u *User) error { return u.mayWrite(db) }); err != nil {
		h.failWrite(w, "auth", err)
		return
	}
	h.write(w, r, &WriteRequest{Database: db, Policy: rp}, precision)
}

func v2Precision(q url.Values) (string, error) {
	switch p := q.Get("precision"); p {
	case "", "ns":
		return "n", nil
	case "us":
		return "u", nil
	case "ms", "s":
		return p, nil
	default:
		return "", fmt.Errorf("invalid precision %q (use ns, us, ms or s)", p)
	}
}

// write reads, parses and stores the body, and words the outcome as InfluxDB does.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, req *WriteRequest, precision string) {
	unit, err := lineproto.ParsePrecision(precision)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	s := h.states.take()
	defer func() { h.states.put(s, time.Now()) }()
	held := holding{of: &h.bodies}
	defer held.release()
	if err := h.readBody(w, r, &s.body, &held); err != nil {
		h.failWrite(w, "body", err)
		return
	}
	release, err := h.admitWrite(r.Context()) // not before: a slow body keeps nobody from writing
	if err != nil {
		h.failWrite(w, "overload", err)
		return
	}
	defer release()
	h.metrics.writeBytes.Add(float64(s.body.Len()))
	report, err := s.parser.Parse(&s.batch, s.body.Bytes(), lineproto.Options{
		Now: h.cfg.Wall().UnixNano(), Precision: unit, Unsigned: h.cfg.AcceptUnsigned})
	if err != nil {
		h.failWrite(w, "parse", err)
		return
	}
	if report.Points > 0 || report.Dropped > 0 {
		req.Batch, req.Refused, req.Reason = &s.batch, report.Dropped, report.Reason
		err := h.store(r.Context(), req)
		if req.Hinted {
			w.Header().Set("X-DSDB-Hinted", "1")
		}
		if err != nil {
			h.failWrite(w, "store", withBadLines(err, &report))
			return
		}
		h.metrics.points.Add(float64(report.Points))
	}
	if text := report.Text(); text != "" {
		h.metrics.writeErrors.WithLabelValues("parse").Inc()
		if report.Points > 0 {
			text = fmt.Sprintf("partial write: %s dropped=0", text)
		}
		writeError(w, http.StatusBadRequest, text)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// withBadLines adds to a rejection of points what else of the body was not
// stored. Every other error is about the whole write.
func withBadLines(err error, report *lineproto.Report) error {
	if report.BadLines == 0 || dsdb.KindOf(err) != dsdb.KindConflict {
		return err
	}
	return dsdb.Errorf(dsdb.KindConflict, "partial write: %s\n%s", report.Text(), strings.TrimPrefix(err.Error(), "partial write: "))
}

// store gives the backend WriteTimeout to make the points durable.
func (h *Handler) store(ctx context.Context, req *WriteRequest) error {
	if h.cfg.WriteTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.cfg.WriteTimeout)
		defer cancel()
	}
	return h.backend.Write(ctx, req)
}

// failWrite words an error of the whole write. /write quotes the database name
// that it does not find, which /query does not; Telegraf looks for both.
func (h *Handler) failWrite(w http.ResponseWriter, reason string, err error) {
	h.metrics.writeErrors.WithLabelValues(reason).Inc()
	writeError(w, status(err), err.Error())
}

// admitWrite takes one of the MaxWrites places, waiting up to WriteWait.
func (h *Handler) admitWrite(ctx context.Context) (release func(), err error) {
	if h.writes == nil {
		return func() {}, nil
	}
	select {
	case h.writes <- struct{}{}:
		return func() { <-h.writes }, nil
	default:
	}
	t := time.NewTimer(h.cfg.WriteWait)
	defer t.Stop()
	select {
	case h.writes <- struct{}{}:
		return func() { <-h.writes }, nil
	case <-ctx.Done():
		return nil, dsdb.Errorf(dsdb.KindCanceled, "write canceled: %w", ctx.Err())
	case <-t.C:
		return nil, dsdb.Errorf(dsdb.KindUnavailable, "timeout: %d writes are being served and none ended in %v", cap(h.writes), h.cfg.WriteWait)
	}
}
