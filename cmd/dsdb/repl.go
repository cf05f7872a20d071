package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/peterh/liner"
)

// interact asks for lines until the end.
func (s *shell) interact(ctx context.Context) int {
	s.timing = true
	fmt.Fprintf(s.out, "Connected to %s version %s\nDSDB shell %s (help lists the commands)\n", s.client.base, s.client.server, buildVersion())
	l := liner.NewLiner()
	defer l.Close()
	l.SetCtrlCAborts(true)
	l.SetMultiLineMode(true)
	l.SetWordCompleter(s.words.complete)
	s.ask = func(prompt string, hidden bool) (string, error) {
		if hidden {
			return l.PasswordPrompt(prompt)
		}
		return l.Prompt(prompt)
	}
	history := historyFile()
	if f, err := os.Open(history); err == nil {
		_, _ = l.ReadHistory(f) // a shell without its history is still a shell
		f.Close()
	}
	defer saveHistory(l, history)
	for {
		text, err := l.Prompt("> ")
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			continue
		case err != nil: // ctrl-D
			fmt.Fprintln(s.out)
			return exitOK
		case strings.TrimSpace(text) == "":
			continue
		case strings.TrimSpace(text) == "history":
			_, _ = l.WriteHistory(s.out)
			continue
		}
		if !secret(text) {
			l.AppendHistory(text)
		}
		if err := s.interruptible(ctx, text); err == errQuit {
			return exitOK
		} else if err != nil {
			s.complain(err)
		}
	}
}

// interruptible runs a line; ctrl-C ends the line and not the shell.
func (s *shell) interruptible(ctx context.Context, text string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	return s.line(ctx, text)
}

// secret reports whether a line holds a password, which no file should keep.
func secret(text string) bool {
	word, _ := cutCommand(text)
	return word == "auth" || strings.Contains(strings.ToLower(text), "password")
}

func historyFile() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".dsdb_history")
}

func saveHistory(l *liner.State, path string) {
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = l.WriteHistory(f) // as above
}
