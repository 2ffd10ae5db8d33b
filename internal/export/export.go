// Package export writes rows of a log for people and programs outside: NDJSON,
// one event a line, or CSV for spreadsheets.
package export

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Format is how rows are written.
type Format string

// The formats. NDJSON is the faithful one: cells of CSV are changed where a
// spreadsheet would take them for formulas.
const (
	NDJSON Format = "ndjson"
	CSV    Format = "csv"
)

// Options are set once.
type Options struct {
	Format Format
	Public bool // only what viewers may see
	BOM    bool // CSV begins with a byte order mark, without which Excel takes UTF-8 for something else
}

// Writer writes rows. Its output is whole when Close has returned nil.
type Writer struct {
	opts Options
	out  *bufio.Writer
	json *json.Encoder
	csv  *csv.Writer
}

// New makes a writer and writes what stands before the first row.
func New(w io.Writer, opts Options) (*Writer, error) {
	e := &Writer{opts: opts, out: bufio.NewWriterSize(w, 64<<10)}
	switch opts.Format {
	case NDJSON:
		e.json = json.NewEncoder(e.out)
		e.json.SetEscapeHTML(false)
		return e, nil
	case CSV:
		if opts.BOM {
			_, _ = e.out.WriteString("\ufeff") // its error stays in the buffer until Close
		}
		e.csv = csv.NewWriter(e.out)
		return e, e.csv.Write(e.header())
	default:
		return nil, fmt.Errorf("export: unknown format %q", opts.Format)
	}
}

// Write adds a row.
func (e *Writer) Write(row chat.Row) error {
	face := e.face(row)
	if e.json != nil {
		return e.json.Encode(face)
	}
	return e.csv.Write(e.cells(face))
}

// Close writes what is still held back. It does not close the output.
func (e *Writer) Close() error {
	if e.csv != nil {
		if e.csv.Flush(); e.csv.Error() != nil {
			return e.csv.Error()
		}
	}
	return e.out.Flush()
}

// exported is an event with its room, and, in the staff face, with what only
// staff may see.
type exported struct {
	Room string `json:"room"`
	chat.Event
	StartedAt *time.Time         `json:"started_at,omitempty"`
	Staff     *chat.StaffDetails `json:"staff,omitempty"`
}

func (e *Writer) face(row chat.Row) exported {
	if e.opts.Public {
		return exported{Room: row.Room, Event: row.Event()}
	}
	return staffFace(row)
}

// staffFace is all of a row but its Idem, which is a hash that says nothing to
// anybody.
func staffFace(row chat.Row) exported {
	x := exported{Room: row.Room, StartedAt: row.Details.StartedAt, Event: chat.Event{
		Seq: row.Seq, ID: row.ID, At: row.At.UTC().Format(chat.TimeFormat), Broadcast: row.Broadcast, Kind: row.Kind,
		Text: row.Text, Reply: row.Details.Reply, State: row.Details.State, Title: row.Details.Title,
	}}
	if row.User.ID != "" {
		role := row.Details.Role
		if role == "" {
			role = chat.RoleViewer
		}
		x.User = &chat.EventUser{ID: row.User.ID, Nickname: row.User.Nickname, Role: role, Attrs: row.Details.Attrs}
	}
	if row.Staff != (chat.StaffDetails{}) {
		x.Staff = &row.Staff
	}
	return x
}

func (e *Writer) header() []string {
	columns := []string{"room", "seq", "id", "at", "broadcast", "kind", "user", "nickname", "role", "attrs", "text", "reply_to", "state", "title"}
	if !e.opts.Public {
		columns = append(columns, "session", "reason")
	}
	return columns
}

func (e *Writer) cells(x exported) []string {
	var user chat.EventUser
	if x.User != nil {
		user = *x.User
	}
	reply := ""
	if x.Reply != nil {
		reply = strconv.FormatInt(x.Reply.Seq, 10)
	}
	cells := []string{x.Room, strconv.FormatInt(x.Seq, 10), x.ID, x.At, x.Broadcast, string(x.Kind), user.ID, user.Nickname,
		string(user.Role), string(user.Attrs), x.Text, reply, x.State, x.Title}
	if !e.opts.Public {
		staff := chat.StaffDetails{}
		if x.Staff != nil {
			staff = *x.Staff
		}
		cells = append(cells, staff.Session, staff.Reason)
	}
	for i := range cells {
		cells[i] = defuse(cells[i])
	}
	return cells
}

// formulas are the beginnings that make a spreadsheet compute a cell, the
// full-width forms that East Asian versions also take among them. A line of
// chat is written by a stranger and read on somebody's desk:
// =HYPERLINK(…) would send what stands beside it away.
const formulas = "=+-@\t\r\n＝＋－＠"

// defuse makes a cell text: spreadsheets do not show a leading apostrophe.
func defuse(cell string) string {
	if cell != "" && strings.ContainsRune(formulas, []rune(cell)[0]) {
		return "'" + cell
	}
	return cell
}
