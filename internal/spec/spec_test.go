package spec_test

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi/datamodel"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/spec"
	"github.com/hanmadi/hanmadi/internal/spec/spectest"
	"github.com/hanmadi/hanmadi/internal/wire"
)

func load(t *testing.T) *spectest.Documents {
	t.Helper()
	docs, err := spectest.Load()
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func parse(t *testing.T, data []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The schema of OpenAPI 3.1 is the one that the OpenAPI Initiative publishes; a
// library carries it, as tests reach no network.
func TestOpenAPIIsOpenAPI(t *testing.T) {
	c := jsonschema.NewCompiler()
	if err := c.AddResource("https://hanmadi.invalid/oas", parse(t, []byte(datamodel.OpenAPI31SchemaData))); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("https://hanmadi.invalid/oas")
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(parse(t, spec.OpenAPI())); err != nil {
		t.Errorf("%v", err)
	}
	if err := schema.Validate(parse(t, []byte(`{"openapi":"3.1.0","info":{"title":"x"},"paths":{}}`))); err == nil {
		t.Error("a document without a version passes, so the schema checks nothing")
	}
}

func TestDocumentsAgreeWithThemselves(t *testing.T) {
	if err := load(t).Check(); err != nil {
		t.Error(err)
	}
}

// What clients send may have more members, which we ignore. What we answer may
// not, but for what others put there.
func TestOnlyRequestsAreOpen(t *testing.T) {
	want := []string{
		"asyncapi.json#/components/messages/heartbeatAnswer/payload",
		"asyncapi.json#/components/messages/originalStart/payload",
		"asyncapi.json#/components/messages/relayed/payload",
		"asyncapi.json#/components/messages/start/payload",
		"asyncapi.json#/components/messages/token/payload",
		"openapi.json#/components/responses/Document/content/application~1json/schema", // defined elsewhere
		"openapi.json#/components/schemas/Draft",
		"openapi.json#/components/schemas/EventUser/properties/attrs", // the platform's
		"openapi.json#/components/schemas/LiveQuestion",
		"openapi.json#/components/schemas/Opening",
		"openapi.json#/components/schemas/OriginalDraft",
	}
	if got := slices.Sorted(slices.Values(load(t).Open())); !slices.Equal(got, want) {
		t.Errorf("open objects: got %v, want %v", got, want)
	}
}

// What Check finds, it finds: each edit breaks one thing.
func TestCheckFinds(t *testing.T) {
	for name, edit := range map[string][2]string{
		"a reference to nothing":  {`"#/components/schemas/Sent"`, `"#/components/schemas/Snt"`},
		"a type that is none":     {`"type": "boolean"`, `"type": "bool"`},
		"an open answer":          {`"additionalProperties": false,`, ``},
		"an example of a page":    {`"next": 1040`, `"next": "1040"`},
		"an example of a problem": {`"status": 410, `, ``},
	} {
		broken := bytes.Replace(spec.OpenAPI(), []byte(edit[0]), []byte(edit[1]), 1)
		docs, err := spectest.Parse(broken, spec.AsyncAPI())
		if err == nil {
			err = docs.Check()
		}
		if err == nil || bytes.Equal(broken, spec.OpenAPI()) {
			t.Errorf("%s: not found", name)
		}
	}
	broken := bytes.Replace(spec.AsyncAPI(), []byte(`"to": 5000`), []byte(`"until": 5000`), 1)
	docs, err := spectest.Parse(spec.OpenAPI(), broken)
	if err != nil {
		t.Fatal(err)
	}
	if docs.Check() == nil {
		t.Error("an example of a frame: not found")
	}
}

// Each operation's codes and its statuses are two views of one thing, and the
// shared response says what is true of all codes with that status.
func TestRefusalsOfOperations(t *testing.T) {
	catalogue, ids := chat.Catalogue(), map[string]bool{}
	for _, op := range load(t).Operations() {
		want := map[string]string{}
		for _, code := range op.Refusals {
			e, known := catalogue[chat.Code(code)]
			if !known {
				t.Errorf("%s: %q is not in the catalogue", op.ID, code)
			}
			want[strconv.Itoa(e.Status)] = responseOf(e)
		}
		if !maps.Equal(op.Problems, want) {
			t.Errorf("%s: its x-refusals have the responses %v, documented are %v", op.ID, want, op.Problems)
		}
		if !slices.IsSorted(op.Refusals) {
			t.Errorf("%s: x-refusals are not in order", op.ID)
		}
		if op.ID == "" || ids[op.ID] {
			t.Errorf("%s %s: operationId %q is missing or another's", op.Method, op.Path, op.ID)
		}
		ids[op.ID] = true
	}
}

func responseOf(e chat.Entry) string {
	switch {
	case e.Status == 401:
		return "Unauthorized"
	case e.Status == 426:
		return "UpgradeRequired"
	case e.Waits():
		return "TryLater"
	default:
		return "Refused"
	}
}

func TestCodesAndParamsAreTheCatalogues(t *testing.T) {
	docs := load(t)
	fields := map[string]bool{}
	var codes []string
	for code, e := range chat.Catalogue() {
		codes = append(codes, string(code))
		for _, f := range e.Fields() {
			fields[f] = true
		}
	}
	slices.Sort(codes)
	if got := docs.Codes(); !slices.Equal(got, codes) {
		t.Errorf("codes: got %v, want %v", got, codes)
	}
	if got, want := docs.Params(), slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
		t.Errorf("params: got %v, want %v", got, want)
	}
}

// There is no schema of AsyncAPI 3 to be had without a network, so its shape is
// checked as far as we use it.
func TestSockets(t *testing.T) {
	docs := load(t)
	root, _ := parse(t, spec.AsyncAPI()).(map[string]any)
	if root["asyncapi"] != "3.0.0" {
		t.Errorf("asyncapi: got %v, want 3.0.0", root["asyncapi"])
	}
	if unsent := docs.Unsent(); len(unsent) > 0 {
		t.Errorf("messages that nobody sends: %v", unsent)
	}
	catalogue, named := chat.Catalogue(), map[int]bool{}
	for _, c := range docs.CloseCodes("/v1/presenter") {
		named[c.Code] = true
		code := wire.CloseCode(c.Code)
		if c.Name != code.String() || c.Reconnect != code.Retry() || len(c.Refusals) == 0 {
			t.Errorf("close code %d: got %q, reconnect %t, want %q, %t, and refusals", c.Code, c.Name, c.Reconnect, code, code.Retry())
		}
		for _, r := range c.Refusals {
			if _, known := catalogue[chat.Code(r)]; !known {
				t.Errorf("close code %d: %q is not in the catalogue", c.Code, r)
			}
		}
	}
	for code := wire.CloseCode(4000); code < 5000; code++ {
		if known := !strings.HasPrefix(code.String(), "close code "); known != named[int(code)] {
			t.Errorf("close code %d (%s): documented %t, want %t", code, code, named[int(code)], known)
		}
	}
}
