// Package spectest holds what tests see of the interface against the documents
// that describe it: [Handler] every exchange over HTTP, [Frame] every message of
// a socket. Whatever is not documented is an error, also where it does no harm.
package spectest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/hanmadi/hanmadi/internal/spec"
)

// The documents' addresses. They only have to stand beside each other, as one
// refers to the other.
const (
	base    = "https://hanmadi.invalid/"
	openAPI = base + "openapi.json"
	async   = base + "asyncapi.json"
)

// Documents are both documents, with schemas that are compiled when they are
// first needed. Methods may be called concurrently.
type Documents struct {
	roots map[string]any // by address, set once

	mu       sync.Mutex
	compiler *jsonschema.Compiler          // guarded by mu
	schemas  map[string]*jsonschema.Schema // guarded by mu, by address
	frames   map[string][]message          // guarded by mu, by channel and side
}

// Load reads the documents, once for all tests of a process.
var Load = sync.OnceValues(func() (*Documents, error) {
	return Parse(spec.OpenAPI(), spec.AsyncAPI())
})

// Parse reads two documents.
func Parse(openapi, asyncapi []byte) (*Documents, error) {
	d := &Documents{roots: map[string]any{}, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}, frames: map[string][]message{}}
	d.compiler.AssertFormat()
	for at, data := range map[string][]byte{openAPI: openapi, async: asyncapi} {
		root, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		d.roots[at] = root
		if err := d.compiler.AddResource(at, root); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
	}
	return d, nil
}

// node is a place in a document: its address, with a JSON pointer behind the #,
// and what stands there. The zero node is nowhere.
type node struct {
	docs  *Documents
	at    string
	value any
}

// openAPI is the root of the HTTP document.
func (d *Documents) openAPI() node { return node{d, openAPI + "#", d.roots[openAPI]} }

func (d *Documents) asyncAPI() node { return node{d, async + "#", d.roots[async]} }

func (n node) exists() bool { return n.docs != nil }

// get goes down by names and follows references on the way. What is not there
// is the zero node.
func (n node) get(names ...string) node {
	for _, name := range names {
		m, _ := n.value.(map[string]any)
		v, ok := m[name]
		if !ok {
			return node{}
		}
		n = n.below(name, v).resolved()
	}
	return n
}

// below is a member's place. In a pointer / is written ~1, and ~ is ~0.
func (n node) below(name string, value any) node {
	return node{n.docs, n.at + "/" + strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1"), value}
}

func (n node) resolved() node {
	m, _ := n.value.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return n
	}
	doc, pointer, _ := strings.Cut(ref, "#")
	root := n.docs.openAPI()
	if at, _, _ := strings.Cut(n.at, "#"); doc == "" && at == async {
		root = n.docs.asyncAPI()
	}
	var names []string
	for _, name := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		names = append(names, strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~"))
	}
	return root.get(names...)
}

// keys are the names of an object's members.
func (n node) keys() []string {
	m, _ := n.value.(map[string]any)
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// items are an array's elements, with references followed.
func (n node) items() []node {
	list, _ := n.value.([]any)
	all := make([]node, len(list))
	for i, v := range list {
		all[i] = node{n.docs, fmt.Sprintf("%s/%d", n.at, i), v}.resolved()
	}
	return all
}

func (n node) text() string {
	s, _ := n.value.(string)
	return s
}

func (n node) texts() []string {
	var all []string
	for _, item := range n.items() {
		all = append(all, item.text())
	}
	return all
}

func (n node) isTrue() bool { return n.value == true }

// schema compiles the schema that stands here.
func (n node) schema() (*jsonschema.Schema, error) {
	if !n.exists() {
		return nil, errors.New("there is no schema")
	}
	n.docs.mu.Lock()
	defer n.docs.mu.Unlock()
	if s := n.docs.schemas[n.at]; s != nil {
		return s, nil
	}
	s, err := n.docs.compiler.Compile(n.at)
	if err == nil {
		n.docs.schemas[n.at] = s
	}
	return s, err
}

// validate holds a value against the schema that stands here.
func (n node) validate(v any) error {
	s, err := n.schema()
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// validateJSON does so with JSON text.
func (n node) validateJSON(data []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return n.validate(v)
}
