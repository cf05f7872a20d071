package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
		shards, text, err := c.compare(ctx, p, replicas)
		if err == nil && text == "" {
			return shards, nil
		}
		if err == nil {
			err = fmt.Errorf("the replicas do not agree: %s", text)
		}
		select {
		case <-ctx.Done():
			return shards, err
		case <-time.After(200 * time.Millisecond):
		}
	}
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
