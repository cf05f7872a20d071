package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
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
// "# CONTEXT-RETENTION-POLICY: rp" saying where they go. A file of nothing but
// points needs no such lines if -database says where they go.
type importer struct {
	s                 *shell
	part              part
	batch             bytes.Buffer
	points            int  // in batch
	inString          bool // batch ends within a string, which the next line continues
	target            writeTarget
	commands, written int
	failed            int
	began             time.Time
	pps               int
	bar               *progressbar.ProgressBar // nil where there is no terminal
	reported          int
}

// part is a part of a file.
type part int

const (
	headless part = iota // no line has said yet what follows
	ddl
	dml
)

// importFile loads the file at -path.
func (s *shell) importFile(ctx context.Context, o *options) int {
	im := &importer{s: s, began: time.Now(), pps: o.pps,
		target: writeTarget{s.database, s.policy, s.precision, s.consistency}}
	err := im.load(ctx, o)
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

func (im *importer) load(ctx context.Context, o *options) error {
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
		if lerr := im.line(ctx, line); lerr != nil {
			return fmt.Errorf("%s: line %d: %w", o.path, n, lerr)
		}
		if err == io.EOF {
			return im.flush(ctx)
		}
	}
}

// line takes one line, with its end.
func (im *importer) line(ctx context.Context, line string) error {
	text := strings.TrimSpace(line)
	switch {
	case im.inString:
		return im.point(ctx, line)
	case text == "":
		return nil
	case strings.HasPrefix(text, "#"):
		return im.directive(ctx, strings.TrimSpace(text[1:]))
	case im.part == ddl, im.part == headless && beginsStatement(text):
		im.commands++
		return im.s.client.query(ctx, text, &im.s.settings, func(*result) error { return nil })
	case im.target.database == "":
		return errors.New("points before a line \"# CONTEXT-DATABASE: NAME\"; or give -database")
	}
	im.points++
	return im.point(ctx, strings.TrimRight(line, "\r\n")+"\n")
}

// point takes a line of line protocol. A batch ends at the end of a point,
// unless what looks like a string never ends.
func (im *importer) point(ctx context.Context, line string) error {
	im.inString = endsInString(line, im.inString)
	im.batch.WriteString(line)
	if n := im.batch.Len(); im.inString && n < 2*batchBytes || im.points < batchPoints && n < batchBytes {
		return nil
	}
	return im.flush(ctx)
}

// endsInString reports whether a line of points, which begins in a string or
// not, ends within a string: fields begin behind the first space that no
// backslash precedes, and quotes count from there on.
func endsInString(line string, in bool) bool {
	fields := in
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\':
			i++
		case c == ' ':
			fields = true
		case c == '"' && fields:
			in = !in
		}
	}
	return in
}

func (im *importer) directive(ctx context.Context, text string) error {
	key, value, _ := strings.Cut(text, ":")
	switch strings.ToUpper(strings.TrimSpace(key)) {
	case "DDL":
		im.part = ddl
		return im.flush(ctx)
	case "DML":
		im.part = dml
	case "CONTEXT-DATABASE":
		err := im.flush(ctx)
		im.target.database = strings.TrimSpace(value)
		return err
	case "CONTEXT-RETENTION-POLICY":
		err := im.flush(ctx)
		im.target.policy = strings.TrimSpace(value)
		return err
	}
	return nil
}

// flush writes the batch. Points that the server refuses for good are counted
// and named; what may pass is tried again.
func (im *importer) flush(ctx context.Context) error {
	if im.points == 0 {
		return nil
	}
	err := im.write(ctx)
	var se *serverError
	switch {
	case err == nil:
		im.written += im.points
	case errors.As(err, &se) && se.status == 400:
		bad := refused(se.text, im.points)
		im.failed += bad
		im.written += im.points - bad
		fmt.Fprintln(im.s.errOut, "ERR:", se.text)
	default:
		im.failed += im.points
		return explain(err, "")
	}
	im.batch.Reset()
	im.points, im.inString = 0, false
	im.progress()
	return im.throttle(ctx)
}

// write sends the batch, again and again if that may help.
func (im *importer) write(ctx context.Context) (err error) {
	for try := range writeTries {
		if err = im.s.client.write(ctx, im.batch.Bytes(), im.target); err == nil {
			return nil
		}
		var se *serverError
		if errors.As(err, &se) && se.status/100 == 4 {
			return err
		}
		if try < writeTries-1 && wait(ctx, time.Duration(try+1)*500*time.Millisecond) != nil {
			return ctx.Err()
		}
	}
	return err
}

// wait returns after d, or an error as soon as ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

var (
	moreLines = regexp.MustCompile(`and (\d+) more lines`)
	dropped   = regexp.MustCompile(`dropped=(\d+)`)
)

// refused counts the points that an answer says were not stored, out of all.
func refused(text string, all int) int {
	if !strings.HasPrefix(text, "partial write") {
		return all
	}
	bad := strings.Count(text, "unable to parse")
	for _, re := range []*regexp.Regexp{moreLines, dropped} {
		if m := re.FindStringSubmatch(text); m != nil {
			n, _ := strconv.Atoi(m[1]) // digits; too many of them are cut below
			bad += n
		}
	}
	return min(max(bad, 1), all)
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
func (im *importer) throttle(ctx context.Context) error {
	if im.pps <= 0 {
		return nil
	}
	due := im.began.Add(time.Duration(float64(im.written+im.failed) / float64(im.pps) * float64(time.Second)))
	return wait(ctx, time.Until(due))
}
