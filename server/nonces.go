package server

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"
)

// nonceLife is how long a nonce may be used.
const nonceLife = time.Minute

// nonces are what nodes that ask to join sign with the shared secret, each to be
// used once. Anybody may have one, so nothing is kept of those that are given
// out: they prove themselves. Kept are those that were used, which takes the secret.
type nonces struct {
	key   [32]byte // of this start
	began time.Time

	mu   sync.Mutex
	used map[string]time.Duration // since began; guarded by mu
}

// sealed is the part of a nonce that its proof covers: 8 bytes of time, 16 random ones.
const sealed = 8 + 16

func newNonces() *nonces {
	ns := &nonces{began: time.Now(), used: map[string]time.Duration{}}
	_, _ = rand.Read(ns.key[:]) // never fails: see crypto/rand
	return ns
}

func (ns *nonces) seal(dst, b []byte) []byte {
	m := hmac.New(sha256.New, ns.key[:])
	_, _ = m.Write(b) // never fails: see hash.Hash
	return m.Sum(dst)
}

// give returns a new one.
func (ns *nonces) give() string {
	var b [sealed]byte
	binary.LittleEndian.PutUint64(b[:], uint64(time.Since(ns.began)))
	_, _ = rand.Read(b[8:]) // never fails: see crypto/rand
	return hex.EncodeToString(ns.seal(b[:], b[:]))
}

// use reports whether a nonce was given here, is not too old, and is used for the
// first time. It is to be called for a request that was signed.
func (ns *nonces) use(nonce string) bool {
	b, err := hex.DecodeString(nonce)
	if err != nil || len(b) < sealed || !hmac.Equal(b[sealed:], ns.seal(nil, b[:sealed])) {
		return false
	}
	given, now := time.Duration(binary.LittleEndian.Uint64(b)), time.Since(ns.began)
	nonce = string(b)
	ns.mu.Lock()
	defer ns.mu.Unlock()
	for old, at := range ns.used {
		if now-at > nonceLife {
			delete(ns.used, old)
		}
	}
	_, again := ns.used[nonce]
	if again || now-given > nonceLife {
		return false
	}
	ns.used[nonce] = given
	return true
}
