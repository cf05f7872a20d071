package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// client talks to one server.
type client struct {
	base               string
	username, password string
	http               *http.Client
	server             string // its version, after ping
}

// newClient makes a client of the server at addr (host:port).
func newClient(o *options, addr string) *client {
	scheme := "http"
	if o.ssl {
		scheme = "https"
	}
	return &client{base: scheme + "://" + addr, username: o.username, password: o.password,
		http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: o.unsafeSSL}, ResponseHeaderTimeout: 0,
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}}}
}

func (c *client) do(ctx context.Context, method, path string, params url.Values, body io.Reader, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path+"?"+params.Encode(), body)
	if err != nil {
		return nil, err
	}
	if c.username != "" {
		req.SetBasicAuth(c.username, c.password)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // the URL holds the statement
	}
	return resp, err
}

// ping learns the server's version. A server that asks who we are is there, too.
func (c *client) ping(ctx context.Context) error {
	resp, err := c.do(ctx, "GET", "/ping", nil, nil)
	if err != nil {
		return err
	}
	if code := resp.StatusCode; code/100 != 2 && code != http.StatusUnauthorized && code != http.StatusForbidden {
		return responseError(resp)
	}
	defer resp.Body.Close()
	if c.server = resp.Header.Get("X-Dsdb-Version"); c.server != "" {
		c.server = "DSDB " + c.server
	} else {
		c.server = "InfluxDB " + resp.Header.Get("X-Influxdb-Version")
	}
	return nil
}

// result is the answer to one statement, or a part of it.
type result struct {
	StatementID int      `json:"statement_id"`
	Series      []series `json:"series"`
	Messages    []struct {
		Level, Text string
	} `json:"messages"`
	Error   string `json:"error"`
	Partial bool   `json:"partial"`
}

// series is one series of an answer. Numbers are json.Number, so that none loses digits.
type series struct {
	Name    string            `json:"name"`
	Tags    map[string]string `json:"tags"`
	Columns []string          `json:"columns"`
	Values  [][]any           `json:"values"`
	Partial bool              `json:"partial"`
}

// query runs statements and calls each for every part of the answer as it comes.
func (c *client) query(ctx context.Context, text string, s *settings, each func(r *result) error) error {
	resp, err := c.send(ctx, text, s, url.Values{"chunked": {"true"}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	dec.UseNumber()
	for {
		var doc struct {
			Results []result
			Error   string
		}
		if err := dec.Decode(&doc); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("the answer of the server cannot be read: %w", err)
		}
		if doc.Error != "" {
			return errors.New(doc.Error)
		}
		for i := range doc.Results {
			if e := doc.Results[i].Error; e != "" {
				return errors.New(e)
			}
			if err := each(&doc.Results[i]); err != nil {
				return err
			}
		}
	}
}

// queryRaw copies the answer as it comes, and returns the first error in it.
func (c *client) queryRaw(ctx context.Context, text string, s *settings, out io.Writer) error {
	params := url.Values{}
	if s.pretty {
		params.Set("pretty", "true")
	}
	resp, err := c.send(ctx, text, s, params)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := io.TeeReader(resp.Body, out)
	found, err := findError(json.NewDecoder(in))
	if _, cerr := io.Copy(io.Discard, in); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("the answer of the server cannot be read: %w", err)
	}
	if found != "" {
		return errors.New(found)
	}
	return nil
}

// findError returns the error of the answer, or else that of its first
// statement that has one. It holds no more than a token of the answer.
func findError(dec *json.Decoder) (string, error) {
	found, isKey := "", false
	var open []json.Delim // brackets around the token
	for {
		t, err := dec.Token()
		if err == io.EOF && len(open) == 0 {
			return found, nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return found, err
		}
		isValue := isKey
		isKey = false
		switch t := t.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				open = append(open, t)
			} else {
				open = open[:len(open)-1]
			}
		case string:
			// Of {"results":[{"error":…,…}],"error":…} all strings but the errors are keys.
			inObject := len(open) > 0 && len(open) <= 3 && open[len(open)-1] == '{'
			isKey = inObject && !isValue && t == "error"
			if isValue && found == "" {
				found = t
			}
		}
	}
}

func (c *client) send(ctx context.Context, text string, s *settings, params url.Values) (*http.Response, error) {
	if s.precision != "rfc3339" {
		params.Set("epoch", s.precision)
	}
	if s.database != "" {
		params.Set("db", s.database)
	}
	if s.policy != "" {
		params.Set("rp", s.policy)
	}
	resp, err := c.do(ctx, "POST", "/query", params, strings.NewReader(url.Values{"q": {text}}.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, responseError(resp)
	}
	return resp, nil
}

// responseError reads the error out of an answer that is none, and closes it.
func responseError(resp *http.Response) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	var doc struct{ Error string }
	if json.Unmarshal(body, &doc) == nil && doc.Error != "" {
		return &serverError{resp.StatusCode, doc.Error}
	}
	return &serverError{resp.StatusCode, resp.Status + ": " + strings.TrimSpace(string(body))}
}

// serverError is a refusal with its status.
type serverError struct {
	status int
	text   string
}

func (e *serverError) Error() string { return e.text }

// writeTarget says where points go.
type writeTarget struct{ database, policy, precision, consistency string }

// write sends points as line protocol, gzipped if there are many.
func (c *client) write(ctx context.Context, points []byte, t writeTarget) error {
	params := url.Values{"db": {t.database}, "consistency": {t.consistency}}
	if t.policy != "" {
		params.Set("rp", t.policy)
	}
	if t.precision != "rfc3339" && t.precision != "ns" { // those are nanoseconds, for which 0.10 has another name
		params.Set("precision", t.precision)
	}
	body, headers := points, []string(nil)
	if len(points) > 64<<10 {
		var z bytes.Buffer
		w, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed) // the level is valid
		_, _ = w.Write(points)                          // to memory
		if err := w.Close(); err != nil {
			return err
		}
		body, headers = z.Bytes(), []string{"Content-Encoding", "gzip"}
	}
	resp, err := c.do(ctx, "POST", "/write", params, bytes.NewReader(body), headers...)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return responseError(resp)
	}
	return resp.Body.Close()
}
