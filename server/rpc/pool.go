package rpc

import (
	"sync"
	"time"
)

// pool keeps connections to a peer that wait for their next stream.
type pool struct {
	peer *peer

	mu     sync.Mutex
	idle   []*conn // the one used last is last
	expiry *time.Timer
	serves int // incoming stream connections
}

// take returns a connection, nil if there is none.
func (l *pool) take() *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.idle) == 0 {
		return nil
	}
	c := l.idle[len(l.idle)-1]
	l.idle = l.idle[:len(l.idle)-1]
	return c
}

// put keeps a connection for a while. It reports false if it is not wanted.
func (l *pool) put(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.idle) >= maxIdle || l.peer.ctx.Err() != nil {
		return false
	}
	l.idle = append(l.idle, c)
	if l.expiry == nil {
		l.expiry = time.AfterFunc(idleTime, l.clear)
	} else {
		l.expiry.Reset(idleTime)
	}
	return true
}

// clear ends all that wait.
func (l *pool) clear() {
	l.mu.Lock()
	idle := l.idle
	l.idle = nil
	if l.expiry != nil {
		l.expiry.Stop()
	}
	l.mu.Unlock()
	for _, c := range idle {
		c.end()
	}
}

// enter takes a place for an incoming stream connection, if there is one.
func (l *pool) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.serves >= maxServes {
		return false
	}
	l.serves++
	return true
}

func (l *pool) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serves--
}
