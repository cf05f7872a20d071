package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// key is one configurable value of a Config.
type key struct {
	section, name, doc string
	value              reflect.Value
}

// path is the key's name with its section, e.g. http.bind-address.
func (k key) path() string {
	if k.section == "" {
		return k.name
	}
	return k.section + "." + k.name
}

// text is the value as TOML.
func (k key) text() string {
	if s, ok := k.value.Interface().(fmt.Stringer); ok {
		return strconv.Quote(s.String())
	}
	if k.value.Kind() == reflect.String {
		return strconv.Quote(k.value.String())
	}
	return fmt.Sprint(k.value.Interface())
}

// set parses text into the value.
func (k key) set(text string) error {
	if u, ok := k.value.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch k.value.Kind() {
	case reflect.String:
		k.value.SetString(text)
	case reflect.Bool:
		v, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		k.value.SetBool(v)
	case reflect.Int:
		v, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		k.value.SetInt(int64(v))
	default:
		panic("BUG: config key of kind " + k.value.Kind().String())
	}
	return nil
}

// keys lists all keys of c in the order of the struct, those without section first.
func (c *Config) keys() []key {
	var out []key
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("toml")
		if f.Type.Kind() != reflect.Struct {
			out = append(out, key{"", name, f.Tag.Get("doc"), v.Field(i)})
			continue
		}
		for j := range f.Type.NumField() {
			g := f.Type.Field(j)
			out = append(out, key{name, g.Tag.Get("toml"), g.Tag.Get("doc"), v.Field(i).Field(j)})
		}
	}
	return out
}

// applyEnv applies DSDB_SECTION_KEY=value and, for what that leaves alone,
// INFLUXDB_SECTION_KEY=value. An empty value is as good as none.
func (c *Config) applyEnv(env []string) (warnings []string, err error) {
	vars := map[string]string{}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok && value != "" {
			vars[name] = value
		}
	}
	for _, k := range c.keys() {
		for _, name := range k.variables() {
			text, ok := vars[name]
			if !ok {
				continue
			}
			if err := k.set(text); err != nil {
				return nil, fmt.Errorf("environment variable %s: %w", name, err)
			}
			break
		}
	}
	for name := range vars {
		if w := warning(name); w != "" {
			warnings = append(warnings, w)
		}
	}
	sort.Strings(warnings)
	return warnings, nil
}

// indexed matches the variables of sections that may stand in a file more than once.
var indexed = regexp.MustCompile(`^(GRAPHITE|COLLECTD|OPENTSDB|UDP)_[0-9]+_`)

// warning says what is odd about a variable that is set: its key has no effect,
// or looks like one of ours and is none. "" means: nothing.
func warning(name string) string {
	for _, prefix := range prefixes {
		rest, ours := strings.CutPrefix(name, prefix)
		if !ours {
			continue
		}
		rest = indexed.ReplaceAllString(rest, "${1}_")
		known := map[string]string{}
		for _, key := range knownKeys() {
			known[variable(key)] = key
		}
		if key, ok := known[rest]; ok {
			if reason, ok := ignored(key); ok {
				return fmt.Sprintf("%s has no effect: %s", name, reason)
			}
			return ""
		}
		if prefix == prefixes[0] && ofSection(rest) {
			return fmt.Sprintf("%s has no effect: no such key; did you mean %s%s?", name, prefix, nearest(rest, slices.Sorted(maps.Keys(known))))
		}
	}
	return ""
}

// ofSection reports whether the name of a variable, without prefix, begins with that of a section.
func ofSection(rest string) bool {
	return slices.ContainsFunc(sections(), func(s string) bool { return strings.HasPrefix(rest, variable(s)+"_") })
}

var prefixes = []string{"DSDB_", "INFLUXDB_"}

// variables names the environment variables of a key, the strongest first.
// [coordinator] was called [cluster].
func (k key) variables() []string {
	names := []string{k.path()}
	if k.section == "coordinator" {
		names = append(names, "cluster."+k.name)
	}
	var out []string
	for _, p := range prefixes {
		for _, n := range names {
			out = append(out, p+variable(n))
		}
	}
	return out
}

// variable turns http.bind-address into HTTP_BIND_ADDRESS.
func variable(path string) string {
	return strings.NewReplacer(".", "_", "-", "_").Replace(strings.ToUpper(path))
}
