package main

import (
	"bufio"
	"context"
	"io"
	"strings"
)

// executeInput runs what stands on standard input: commands of the shell, a
// line each, and statements, which may take several lines. A statement ends at
// a semicolon at the end of a line, at an empty line, or where the next one
// begins. The first failure ends it all.
func (s *shell) executeInput(ctx context.Context, in io.Reader) int {
	r := bufio.NewReaderSize(in, 1<<20)
	pending := ""
	run := func(text string) bool {
		err := s.line(ctx, text)
		if err != nil {
			s.complain(err)
		}
		return err == nil
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil && err != io.EOF {
			s.complain(err)
			return exitFailed
		}
		end, isEnd := err == io.EOF, false
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case line == "":
			isEnd = true
		case pending == "" || !endsOpen(pending) && (beginsStatement(line) || isCommand(line)):
			if pending != "" && !run(pending) {
				return exitFailed
			}
			pending = line
		default:
			pending += "\n" + line
		}
		isEnd = isEnd || end || strings.HasSuffix(line, ";") || isCommand(pending)
		if isEnd && pending != "" {
			switch word, _, _ := strings.Cut(strings.TrimSuffix(pending, ";"), " "); strings.ToLower(word) {
			case "exit", "quit":
				return exitOK
			}
			if !run(pending) {
				return exitFailed
			}
			pending = ""
		}
		if end {
			return exitOK
		}
	}
}

// statementWords begin statements.
var statementWords = strings.Fields("SELECT SHOW CREATE DROP DELETE ALTER GRANT REVOKE SET KILL EXPLAIN")

// beginsStatement reports whether a line begins a statement, and is not a
// point of a measurement with such a name.
func beginsStatement(line string) bool {
	words := strings.Fields(line)
	if len(words) < 2 || strings.Contains(words[1], "=") {
		return false
	}
	for _, w := range statementWords {
		if strings.EqualFold(w, words[0]) {
			return true
		}
	}
	return false
}

// endsOpen reports whether the text of statements wants to go on on the next
// line whatever that begins with: a bracket is open, or EXPLAIN or BEGIN wait
// for their statement.
func endsOpen(text string) bool {
	depth, quote := 0, byte(0)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quote != 0 && c == '\\':
			i++
		case c == quote:
			quote = 0
		case quote != 0:
		case c == '"' || c == '\'':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			depth--
		}
	}
	words := strings.Fields(strings.ToUpper(text))
	last := ""
	if len(words) > 0 {
		last = words[len(words)-1]
	}
	return depth > 0 || last == "EXPLAIN" || last == "ANALYZE" || last == "BEGIN"
}
