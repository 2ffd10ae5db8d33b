package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// maxConfigFile and maxSecretFile bound what is read, in bytes.
const (
	maxConfigFile = 1 << 20
	maxSecretFile = 64 << 10
)

// configFile is the settings of a YAML file by their dotted names. It resolves
// flags for the command line, below the environment and the flags themselves.
type configFile struct {
	path   string
	values map[string]any
	env    func(string) (string, bool)
}

// readConfigFile reads the file that --config or HANMADI_CONFIG names, if any.
// It looks at the arguments itself: the file must be known before they are
// parsed, as it answers for the flags that are not there.
func readConfigFile(args []string, env func(string) (string, bool)) (*configFile, error) {
	path, _ := env("HANMADI_CONFIG")
	for i, arg := range args {
		if v, ok := strings.CutPrefix(arg, "--config="); ok {
			path = v
		} else if arg == "--config" && i+1 < len(args) {
			path = args[i+1]
		}
	}
	f := &configFile{path: path, values: map[string]any{}, env: env}
	if path == "" {
		return f, f.checkEnv(os.Environ())
	}
	data, err := readBounded(path, maxConfigFile)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if err := f.parse(data); err != nil {
		return nil, fmt.Errorf("config %s: %w", path, err)
	}
	return f, f.checkEnv(os.Environ())
}

func readBounded(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return data, err
}

func (f *configFile) parse(data []byte) error {
	var root, more yaml.Node
	documents := yaml.NewDecoder(bytes.NewReader(data))
	if err := documents.Decode(&root); err != nil && err != io.EOF {
		return err
	}
	if err := documents.Decode(&more); err != io.EOF {
		return cmp.Or(err, fmt.Errorf("line %d: a second document; all settings belong into one", more.Line))
	}
	if len(root.Content) == 0 {
		return nil
	}
	return f.flatten("", root.Content[0])
}

// flatten walks the file's mappings, refusing keys that nobody knows.
func (f *configFile) flatten(prefix string, node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: %s must be a mapping of settings", node.Line, cmp.Or(prefix, "the file"))
	}
	known := knownKeys()
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := strings.TrimPrefix(prefix+"."+key.Value, ".")
		section := slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, name+".") })
		switch {
		case section && value.Kind == yaml.ScalarNode && value.Tag == "!!null": // a heading whose settings are commented out
		case section:
			if err := f.flatten(name, value); err != nil {
				return err
			}
		case !slices.Contains(known, name):
			return fmt.Errorf("line %d: there is no setting %q; did you mean %q?", key.Line, name, nearest(name, withSections(known)))
		default:
			if _, twice := f.values[name]; twice {
				return fmt.Errorf("line %d: %s stands there twice", key.Line, name)
			}
			v, err := settingOf(name, value)
			if err != nil {
				return fmt.Errorf("line %d: %s: %w", value.Line, name, err)
			}
			f.values[name] = v
		}
	}
	return nil
}

// settingOf reads a value. One of a secret is its text: digits alone would be
// read as a number, and be another secret.
func settingOf(name string, value *yaml.Node) (v any, err error) {
	for _, s := range new(Config).secrets() {
		if s.key == name || s.key+"_file" == name {
			var text string
			err = value.Decode(&text)
			return text, err
		}
	}
	err = value.Decode(&v)
	return v, err
}

// withSections adds the names of mappings, which can be misspelt too.
func withSections(keys []string) []string {
	all := slices.Clone(keys)
	for _, key := range keys {
		if section, _, nested := strings.Cut(key, "."); nested {
			all = append(all, section)
		}
	}
	return all
}

// knownKeys lists every setting's dotted name, taken from Config's own tags.
func knownKeys() []string {
	keys := fieldKeys(reflect.TypeFor[Config](), "")
	for _, s := range new(Config).secrets() {
		keys = append(keys, s.key, s.key+"_file")
	}
	return keys
}

func fieldKeys(t reflect.Type, prefix string) (keys []string) {
	for i := range t.NumField() {
		field := t.Field(i)
		switch {
		case field.Tag.Get("kong") == "-":
		case field.Type.Kind() == reflect.Struct:
			keys = append(keys, fieldKeys(field.Type, prefix+field.Tag.Get("prefix"))...)
		default:
			keys = append(keys, prefix+settingName(field))
		}
	}
	return keys
}

// settingName is a field's own name, or the one that it is given as a flag.
func settingName(field reflect.StructField) string {
	if name, named := field.Tag.Lookup("name"); named {
		return strings.ReplaceAll(name, "-", "_")
	}
	return snake(field.Name)
}

// snake writes a field's name as the file does: QueueFor is queue_for, URL url.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		upper := r >= 'A' && r <= 'Z'
		if upper && i > 0 && name[i-1] >= 'a' && name[i-1] <= 'z' {
			b.WriteByte('_')
		}
		b.WriteString(strings.ToLower(string(r)))
	}
	return b.String()
}

// envName is a setting's name in the environment.
func envName(key string) string {
	return "HANMADI_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// nameVariables gives every flag that has none a variable, named as settings
// are. The library's own names would split 30s into 30 and S.
func nameVariables(parser *kong.Kong) error {
	var visit func(*kong.Node)
	visit = func(node *kong.Node) {
		for _, flag := range node.Flags {
			if flag.Name == "help" || len(flag.Envs) > 0 {
				continue
			}
			flag.Envs = []string{envName(strings.ReplaceAll(flag.Name, "-", "_"))}
			flag.Value.Tag.Envs = flag.Envs
		}
		for _, child := range node.Children {
			visit(child)
		}
	}
	visit(parser.Model.Node)
	return nil
}

// checkEnv refuses a variable that is a slip of the keyboard away from one that
// exists. Others that begin alike are let be: Kubernetes sets
// HANMADI_SERVICE_HOST and more for a service of that name.
func (f *configFile) checkEnv(environ []string) error {
	known := []string{"HANMADI_CONFIG", "HANMADI_URL", "HANMADI_TOKEN", "HANMADI_TOKEN_FILE"}
	for _, key := range knownKeys() {
		known = append(known, envName(key))
	}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "HANMADI_") || slices.Contains(known, name) {
			continue
		}
		if near := nearest(name, known); distance(name, near) <= 2 {
			return fmt.Errorf("environment: there is no setting %s; did you mean %s?", name, near)
		}
	}
	return nil
}

// Validate implements [kong.Resolver].
func (f *configFile) Validate(*kong.Application) error { return nil }

// Resolve implements [kong.Resolver]. The library would let a resolver beat the
// environment, so it says nothing where a variable is set.
func (f *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Envs {
		if _, set := f.env(env); set {
			return nil, nil
		}
	}
	v, ok := f.values[strings.ReplaceAll(flag.Name, "-", "_")]
	if !ok {
		return nil, nil
	}
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []any:
		return v, nil
	case map[string]any:
		return nil, fmt.Errorf("%s must be a value, not a mapping", flag.Name)
	default:
		return fmt.Sprint(v), nil
	}
}

// secret is a setting that is given as itself or in a file, never as a flag.
type secret struct {
	key   string
	value *string
}

// secrets fills in the secrets: the environment beats the file, and at each
// level a secret is given in one way or none.
func (f *configFile) secrets(into []secret) error {
	for _, s := range into {
		fromEnv := func(key string) (string, bool) { v, ok := f.env(envName(key)); return v, ok && v != "" }
		fromFile := func(key string) (string, bool) { v, ok := f.values[key].(string); return v, ok && v != "" }
		for _, source := range []struct {
			name string
			get  func(string) (string, bool)
		}{{"environment", fromEnv}, {"config", fromFile}} {
			found, err := takeSecret(s, source.get)
			if err != nil {
				return fmt.Errorf("%s: %w", source.name, err)
			}
			if found {
				break
			}
		}
	}
	return nil
}

func takeSecret(s secret, get func(key string) (string, bool)) (found bool, err error) {
	value, direct := get(s.key)
	path, byFile := get(s.key + "_file")
	switch {
	case direct && byFile:
		return false, fmt.Errorf("%s and %s_file exclude each other", s.key, s.key)
	case direct:
		*s.value = value
	case byFile:
		data, err := readBounded(path, maxSecretFile)
		if err != nil {
			return false, fmt.Errorf("%s_file: %w", s.key, err)
		}
		*s.value = strings.TrimRight(string(data), "\r\n")
	}
	return direct || byFile, nil
}

// nearest is the known name that takes the fewest edits to reach.
func nearest(name string, known []string) string {
	return slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
}

// distance counts the edits from a to b (Levenshtein): insert, delete, replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
