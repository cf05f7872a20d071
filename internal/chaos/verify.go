package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// copies is how many replicas the shards of the load have.
const copies = 3

// comparison is what a node says of the replicas of all shards (POST /debug/verify).
type comparison struct {
	Agree  bool `json:"agree"`
	Shards []struct {
		Shard    uint64            `json:"shard"`
		Agree    bool              `json:"agree"`
		Replicas []json.RawMessage `json:"replicas"`
	} `json:"shards"`
}

// Agree waits until every shard has so many replicas, and all of them have the
// same checksum at one entry of the log. It returns how many shards there are.
func (c *Cluster) Agree(ctx context.Context, p *Process, replicas int) (shards int, err error) {
	for {
		found, text, failed := c.compare(ctx, p, replicas)
		switch {
		case failed == nil && text == "":
			return found, nil
		case failed == nil:
			shards, err = found, fmt.Errorf("the replicas do not agree: %s", text)
		case err == nil || ctx.Err() == nil: // else what was found before says more
			err = failed
		}
		select {
		case <-ctx.Done():
			return shards, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Deliver waits until no node has points that wait for a leader.
func (c *Cluster) Deliver(ctx context.Context) error {
	for _, p := range c.Nodes {
		for {
			n, err := c.waiting(ctx, p)
			if err == nil && n == "0" {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("node %d: %s points wait for a leader: %w", p.ID, n, errors.Join(ctx.Err(), err))
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// waiting returns how many points wait on a node.
func (c *Cluster) waiting(ctx context.Context, p *Process) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(body)) {
		if n, ok := strings.CutPrefix(line, "dsdb_hints_waiting_points "); ok {
			return strings.TrimSpace(n), nil
		}
	}
	return "", fmt.Errorf("%s: no such metric", resp.Status)
}

// compare asks a node once. text says which shard is not well.
func (c *Cluster) compare(ctx context.Context, p *Process, replicas int) (shards int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/debug/verify?wait=6s", nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", err
	}
	var all comparison
	if err := json.Unmarshal(body, &all); err != nil || resp.StatusCode != http.StatusOK {
		return 0, "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	for _, s := range all.Shards {
		if !s.Agree || len(s.Replicas) != replicas {
			return len(all.Shards), fmt.Sprintf("shard %d: %s", s.Shard, s.Replicas), nil
		}
	}
	return len(all.Shards), "", nil
}
