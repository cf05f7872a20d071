package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
)

// sayEvery is how often a node that waits says what it waits for.
const sayEvery = 5 * time.Second

// phase is how far a node is on its way to serving.
type phase struct {
	mu   sync.Mutex // guards what follows
	over bool       // the node serves, or has served
	text string     // why it does not serve; "": it does, or is just starting
	said time.Time
}

// wait records why the node does not serve.
func (p *phase) wait(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
}

// say records what the node waits for and logs it, unless the same was logged
// less than sayEvery ago.
func (p *phase) say(log *slog.Logger, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text != p.text || time.Since(p.said) >= sayEvery {
		log.Info("waiting for " + text)
		p.said = time.Now()
	}
	p.text = text
}

// sayWhile says every sayEvery what the node waits for, until over is called.
func (p *phase) sayWhile(log *slog.Logger, text func() string) (over func()) {
	tick, stop, stopped := time.NewTicker(sayEvery), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-tick.C:
				p.say(log, text())
			case <-stop:
				return
			}
		}
	}()
	return func() {
		tick.Stop()
		close(stop)
		<-stopped
	}
}

// done records that the node serves.
func (p *phase) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.over = "", true
}

// waiting returns what the node waits for, "" if it serves.
func (p *phase) waiting() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text
}

// ended returns why a node that has served does not any more, "" if it does or has not yet.
func (p *phase) ended() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		return ""
	}
	return p.text
}

// err returns nil if the node serves.
func (p *phase) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.over && p.text != "":
		return dsdb.Errorf(dsdb.KindUnavailable, "%s", p.text)
	case p.over:
		return nil
	case p.text == "":
		return dsdb.Errorf(dsdb.KindUnavailable, "starting")
	}
	return dsdb.Errorf(dsdb.KindUnavailable, "starting: waiting for %s", p.text)
}

// pauseFor waits; the error is that of ctx, if that ends first.
func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
