package dsdb

import (
	"errors"
	"fmt"
)

// Kind classes an error where a caller must branch on it. server/httpd maps
// kinds one to one to HTTP status codes.
type Kind uint8

// The kinds of errors.
const (
	KindInternal     Kind = iota // a fault of ours; 500
	KindInvalid                  // the request is wrong and stays wrong; 400
	KindNotFound                 // what the request names does not exist; 404
	KindConflict                 // points or a definition contradict what is stored; 400
	KindUnauthorized             // no or wrong credentials; 401
	KindForbidden                // a known user without the right; 403
	KindTooLarge                 // a limit on one request; 413
	KindUnavailable              // may work later: overload, no quorum, full disk; 503
	KindTimeout                  // the outcome is unknown; 503
	KindCanceled                 // the client went away or the query was killed
	KindCorrupt                  // stored bytes are not what was written; 500
	KindNotLeader                // the replica asked does not lead; nothing was done, another may be asked; 503
)

// ErrNewer is in the chain of an error about bytes that a newer version of this
// program has written. They are sound, and nothing behind them may be touched:
// whoever comes upon them waits for a newer program.
var ErrNewer = errors.New("a newer version of dsdb wrote it: upgrade this node")

// Error is an error with a kind. Its text is complete in itself: for kinds
// that a client sees it is InfluxDB's wording.
type Error struct {
	Kind   Kind
	Text   string
	Err    error  // the cause, or nil
	Leader NodeID // of KindNotLeader: the node that leads, 0: it is not known
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an error of kind k; a %w in format sets its cause.
func Errorf(k Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, Text: err.Error(), Err: errors.Unwrap(err)}
}

// KindOf returns the kind of the first *Error in err's chain, KindInternal if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}
