package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
)

// An import sends batches of batchPoints points or batchBytes bytes; a refusal
// that may pass is tried again up to writeTries times.
const (
	batchPoints = 5000
	batchBytes  = 4 << 20
	writeTries  = 5
)

// importer loads a file of InfluxDB's import format: after a line "# DDL"
// statements, after "# DML" points, with "# CONTEXT-DATABASE: db" and
// "# CONTEXT-RETENTION-POLICY: rp" saying where they go.
type importer struct {
	s                 *shell
	dml               bool
	batch             bytes.Buffer
	points            int
	target            writeTarget
	commands, written int
	failed            int
	began             time.Time
	pps               int
	bar               *progressbar.ProgressBar // nil where there is no terminal
	reported          int
}

// importFile loads the file at -path.
func (s *shell) importFile(o *options) int {
	im := &importer{s: s, began: time.Now(), pps: o.pps,
		target: writeTarget{s.database, s.policy, s.precision, s.consistency}}
	err := im.load(o)
	fmt.Fprintf(s.out, "Processed %d commands\nProcessed %d inserts\nFailed %d inserts\n", im.commands, im.written, im.failed)
	if err != nil {
		s.complain(err)
		return exitFailed
	}
	if im.failed > 0 {
		return exitFailed
	}
	return exitOK
}

func (im *importer) load(o *options) error {
	if o.path == "" {
		return errors.New("-import wants -path FILE")
	}
	f := os.Stdin
	if o.path != "-" {
		var err error
		if f, err = os.Open(o.path); err != nil {
			return err
		}
		defer f.Close()
	}
	var src io.Reader = f
	if info, err := f.Stat(); err == nil && isTerminal(im.s.errOut) && info.Mode().IsRegular() {
		im.bar = progressbar.NewOptions64(info.Size(), progressbar.OptionSetWriter(im.s.errOut), progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription("importing"), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
		src = io.TeeReader(f, im.bar)
		defer im.bar.Close()
	}
	if o.compressed {
		z, err := gzip.NewReader(src)
		if err != nil {
			return fmt.Errorf("%s: %w", o.path, err)
		}
		src = z
	}
	r := bufio.NewReaderSize(src, 1<<20)
	for n := 1; ; n++ {
		line, err := r.ReadString('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("%s: line %d: %w", o.path, n, err)
		}
		if text := strings.TrimRight(line, "\r\n"); strings.TrimSpace(text) != "" {
			if err := im.line(text); err != nil {
				return fmt.Errorf("%s: line %d: %w", o.path, n, err)
			}
		}
		if err == io.EOF {
			return im.flush()
		}
	}
}

func (im *importer) line(text string) error {
	if strings.HasPrefix(text, "#") {
		return im.directive(strings.TrimSpace(text[1:]))
	}
	if !im.dml {
		im.commands++
		return im.s.client.query(text, &im.s.settings, func(*result) error { return nil })
	}
	if im.target.database == "" {
		return errors.New("points before a line \"# CONTEXT-DATABASE: NAME\"; or give -database")
	}
	im.batch.WriteString(text)
	im.batch.WriteByte('\n')
	if im.points++; im.points >= batchPoints || im.batch.Len() >= batchBytes {
		return im.flush()
	}
	return nil
}

func (im *importer) directive(text string) error {
	key, value, _ := strings.Cut(text, ":")
	switch strings.ToUpper(strings.TrimSpace(key)) {
	case "DDL":
		im.dml = false
	case "DML":
		im.dml = true
	case "CONTEXT-DATABASE":
		err := im.flush()
		im.target.database = strings.TrimSpace(value)
		return err
	case "CONTEXT-RETENTION-POLICY":
		err := im.flush()
		im.target.policy = strings.TrimSpace(value)
		return err
	}
	return nil
}

// flush writes the batch. Points that the server refuses for good are counted
// and named; what may pass is tried again.
func (im *importer) flush() error {
	if im.points == 0 {
		return nil
	}
	defer func() {
		im.batch.Reset()
		im.points = 0
	}()
	var err error
	for try := range writeTries {
		if err = im.s.client.write(im.batch.Bytes(), im.target); err == nil {
			break
		}
		var se *serverError
		if errors.As(err, &se) && se.status/100 == 4 {
			break
		}
		time.Sleep(time.Duration(try+1) * 500 * time.Millisecond)
	}
	var se *serverError
	switch {
	case err == nil:
		im.written += im.points
	case errors.As(err, &se) && se.status == 400:
		bad := min(max(strings.Count(se.text, "unable to parse"), 1), im.points)
		if !strings.HasPrefix(se.text, "partial write") {
			bad = im.points
		}
		im.failed += bad
		im.written += im.points - bad
		fmt.Fprintln(im.s.errOut, "ERR:", se.text)
	default:
		im.failed += im.points
		return err
	}
	im.progress()
	im.throttle()
	return nil
}

// progress tells how far it is where no bar does.
func (im *importer) progress() {
	done := im.written + im.failed
	if im.bar != nil || done/100000 == im.reported {
		return
	}
	im.reported = done / 100000
	d := time.Since(im.began)
	fmt.Fprintf(im.s.errOut, "Processed %d lines.  Time elapsed: %v.  Points per second (PPS): %d\n", done, d.Round(time.Millisecond), int(float64(done)/d.Seconds()))
}

// throttle waits as long as -pps demands.
func (im *importer) throttle() {
	if im.pps <= 0 {
		return
	}
	due := im.began.Add(time.Duration(float64(im.written+im.failed) / float64(im.pps) * float64(time.Second)))
	time.Sleep(time.Until(due))
}
