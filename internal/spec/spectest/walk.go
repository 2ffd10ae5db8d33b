package spectest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Check reports what is wrong with the documents in themselves: references to
// nothing, schemas that are none, objects that do not say whether they are
// closed, examples that are not what they are examples of.
func (d *Documents) Check() error {
	var errs []error
	for _, root := range []node{d.openAPI(), d.asyncAPI()} {
		root.walk(func(n node) { errs = append(errs, n.checkReference(), n.checkSchema(), n.checkExamples()) })
	}
	return errors.Join(errs...)
}

// walk visits every object below a node, itself first. It follows no references.
func (n node) walk(visit func(node)) {
	switch v := n.value.(type) {
	case map[string]any:
		visit(n)
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if name != "example" && name != "examples" {
				n.below(name, v[name]).walk(visit)
			}
		}
	case []any:
		for i, item := range v {
			node{n.docs, fmt.Sprintf("%s/%d", n.at, i), item}.walk(visit)
		}
	}
}

func (n node) member(name string) any { return n.value.(map[string]any)[name] }

func (n node) checkReference() error {
	if ref, ok := n.member("$ref").(string); ok && !n.resolved().exists() {
		return fmt.Errorf("%s: %s refers to nothing", n.at, ref)
	}
	return nil
}

// isSchema tells schemas by where they stand.
func (n node) isSchema() bool {
	up := n.at[:strings.LastIndex(n.at, "/")+1]
	return strings.HasSuffix(n.at, "/schema") || strings.HasSuffix(n.at, "/payload") && !strings.HasSuffix(up, "/properties/") ||
		strings.HasSuffix(up, "/components/schemas/")
}

func (n node) checkSchema() error {
	if n.member("type") == "object" && n.member("additionalProperties") == nil && !strings.Contains(n.at, "/bindings/") {
		return fmt.Errorf("%s does not say whether it has other members", n.at)
	}
	if !n.isSchema() {
		return nil
	}
	if _, err := n.schema(); err != nil {
		return fmt.Errorf("%s: %w", n.at, err)
	}
	return nil
}

// checkExamples is for media types of OpenAPI, which have a schema, and messages
// of AsyncAPI, which have a payload.
func (n node) checkExamples() error {
	schema, values := n.get("schema"), map[string]any{}
	if v := n.member("example"); v != nil {
		values["example"] = v
	}
	for _, name := range n.get("examples").keys() {
		values[name] = n.get("examples", name, "value").value
	}
	for _, e := range n.get("examples").items() {
		schema, values[e.at] = n.get("payload"), e.get("payload").value
	}
	var errs []error
	for name, v := range values {
		if err := schema.validate(v); err != nil {
			errs = append(errs, fmt.Errorf("%s: the example %s: %w", n.at, name, err))
		}
	}
	return errors.Join(errs...)
}

// Open are the places of objects that may have members which are not documented.
func (d *Documents) Open() (all []string) {
	for _, root := range []node{d.openAPI(), d.asyncAPI()} {
		root.walk(func(n node) {
			if n.member("additionalProperties") == true {
				all = append(all, strings.TrimPrefix(n.at, base))
			}
		})
	}
	return all
}

// Operation is one of the HTTP document's.
type Operation struct {
	Method, Path string
	Operator     bool // it names a server of its own, where operators call it
	ID           string
	Refusals     []string
	Problems     map[string]string // by status, which of the shared responses a refusal is
}

// Operations are all of them.
func (d *Documents) Operations() (all []Operation) {
	paths := d.openAPI().get("paths")
	for _, path := range paths.keys() {
		item := paths.get(path)
		for _, method := range []string{"get", "post", "put", "patch", "delete", "options"} {
			op := item.get(method)
			if !op.exists() {
				continue
			}
			o := Operation{Method: strings.ToUpper(method), Path: path, Operator: item.get("servers").exists(), ID: op.get("operationId").text(),
				Refusals: op.get("x-refusals").texts(), Problems: map[string]string{}}
			for _, status := range op.get("responses").keys() {
				if r := op.get("responses", status); r.get("content", "application/problem+json").exists() {
					o.Problems[status] = strings.TrimPrefix(r.at, openAPI+"#/components/responses/")
				}
			}
			all = append(all, o)
		}
	}
	return all
}

// Codes are those of the schema Code.
func (d *Documents) Codes() []string {
	return d.openAPI().get("components", "schemas", "Code", "enum").texts()
}

// Params are the members of the schema Params.
func (d *Documents) Params() []string {
	return slices.Sorted(slices.Values(d.openAPI().get("components", "schemas", "Params", "properties").keys()))
}

// Unsent are messages of the sockets that no operation sends.
func (d *Documents) Unsent() (all []string) {
	sent := map[string]bool{}
	ops := d.asyncAPI().get("operations")
	for _, name := range ops.keys() {
		for _, m := range ops.get(name, "messages").items() {
			sent[m.at] = true
		}
	}
	messages := d.asyncAPI().get("components", "messages")
	for _, name := range messages.keys() {
		if !sent[messages.get(name).at] {
			all = append(all, name)
		}
	}
	return all
}
