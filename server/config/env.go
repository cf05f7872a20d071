package config

import (
	"encoding"
	"fmt"
	"reflect"
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
	for _, name := range ignoredKeys() {
		for _, prefix := range prefixes {
			if v := prefix + variable(name); vars[v] != "" {
				reason, _ := ignored(name)
				warnings = append(warnings, fmt.Sprintf("%s has no effect: %s", v, reason))
			}
		}
	}
	sort.Strings(warnings)
	return warnings, nil
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
