package raftnode

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/dasudian/dsdb"
)

// raftLogger passes the raft library's log lines of one group on to slog. The
// library is chatty in elections and under back-pressure, so that its info and
// warning lines are debug lines here; the core itself logs what an operator
// must know. A line is formatted only if its level is on.
type raftLogger struct {
	log   *slog.Logger
	group dsdb.GroupID
}

func (l *raftLogger) print(level slog.Level, format string, args []any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	text := fmt.Sprint(args...)
	if format != "" {
		text = fmt.Sprintf(format, args...)
	}
	l.log.Log(context.Background(), level, text, "group", uint64(l.group))
}

func (l *raftLogger) Debug(v ...any)              { l.print(slog.LevelDebug-1, "", v) }
func (l *raftLogger) Debugf(f string, v ...any)   { l.print(slog.LevelDebug-1, f, v) }
func (l *raftLogger) Info(v ...any)               { l.print(slog.LevelDebug, "", v) }
func (l *raftLogger) Infof(f string, v ...any)    { l.print(slog.LevelDebug, f, v) }
func (l *raftLogger) Warning(v ...any)            { l.print(slog.LevelDebug, "", v) }
func (l *raftLogger) Warningf(f string, v ...any) { l.print(slog.LevelDebug, f, v) }
func (l *raftLogger) Error(v ...any)              { l.print(slog.LevelError, "", v) }
func (l *raftLogger) Errorf(f string, v ...any)   { l.print(slog.LevelError, f, v) }

// The library calls these where it cannot go on; the core recovers the panic
// and fails that one group.
func (l *raftLogger) Fatal(v ...any)            { panic(fmt.Sprint(v...)) }
func (l *raftLogger) Fatalf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (l *raftLogger) Panic(v ...any)            { panic(fmt.Sprint(v...)) }
func (l *raftLogger) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
