package main

import (
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// plant is a bug as one might slip in: an edit that breaks one promise, and the
// tests that must go red for it, every one of them.
type plant struct {
	name   string
	breaks string // the promise, as whoever relies on it would put it
	edits  []edit // one; more only where a promise is kept in two places
	pkg    string // of the tests, under the module's root
	tests  []string
}

// edit replaces text that must stand in its file exactly once.
type edit struct{ file, old, new string }

// plants are the bugs of TestPlanted, which plants them (build tag planted). Old
// texts are short, so that they do not go stale with every change around them.
func plants() []plant {
	return slices.Concat(plantedInTheLog, plantedInTheDesk, plantedInTheLinks, plantedAtTheDoor)
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// edited gives the files that the plant changes, by their place in the module,
// as they are with it.
func (p plant) edited(t *testing.T, root string) map[string]string {
	t.Helper()
	edited := map[string]string{}
	for _, e := range p.edits {
		text, again := edited[e.file]
		if !again {
			data, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(data)
		}
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("%s: the plant is stale: %d times in %s, want once:\n%s", p.name, n, e.file, e.old)
		}
		edited[e.file] = strings.Replace(text, e.old, e.new, 1)
		if _, err := format.Source([]byte(edited[e.file])); err != nil {
			t.Fatalf("%s: the edit of %s is not Go: %v", p.name, e.file, err)
		}
	}
	return edited
}

// TestPlantsAreFresh says at once, without planting them, which bugs have lost
// their place in the sources or the tests that are to find them.
func TestPlantsAreFresh(t *testing.T) {
	root := moduleRoot(t)
	names := map[string]bool{}
	for _, p := range plants() {
		t.Run(p.name, func(t *testing.T) {
			p.edited(t, root)
			if p.breaks == "" || len(p.tests) == 0 || names[p.name] {
				t.Errorf("%s: it needs a name of its own, what it breaks, and who finds it", p.name)
			}
			names[p.name] = true
			for _, test := range p.tests {
				if !hasTest(t, filepath.Join(root, p.pkg), test) {
					t.Errorf("%s: there is no %s in %s", p.name, test, p.pkg)
				}
			}
		})
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		data, err := os.ReadFile(file)
		return err == nil && regexp.MustCompile(`(?m)^func `+name+`\(`).Match(data)
	})
}

const (
	appendFile = "internal/chatlog/append.go"
	sqliteFile = "internal/chatlog/sqlite.go"
	tailFile   = "internal/chatlog/tail.go"
	chatFile   = "internal/chat/chat.go"
	deskFile   = "internal/chat/desk.go"
	roomFile   = "internal/chat/room.go"
	hubFile    = "internal/live/hub.go"
	writerFile = "internal/live/writer.go"
	rulesFile  = "internal/token/rules.go"
	gateFile   = "internal/token/gateway.go"
)

var plantedInTheLog = []plant{
	{
		name:   "synchronous=NORMAL",
		breaks: "the writer that would lose lines at a power loss does not start",
		edits:  []edit{{sqliteFile, `synchronous(full)`, `synchronous(normal)`}},
		pkg:    "internal/chatlog", tests: []string{"TestWriterIsSynchronous", "TestRowsSurviveReopening"},
	},
	{
		name:   "synchronous=OFF",
		breaks: "the writer that would lose lines at a power loss does not start",
		edits:  []edit{{sqliteFile, `synchronous(full)`, `synchronous(off)`}},
		pkg:    "internal/chatlog", tests: []string{"TestWriterIsSynchronous", "TestRowsSurviveReopening"},
	},
	{
		name:   "synchronous=NORMAL behind the check",
		breaks: "the sync returns before the 201 leaves",
		edits:  []edit{{sqliteFile, `return s.write.prepare(ctx, s.writer)`, `_, _ = s.writer.ExecContext(ctx, "PRAGMA synchronous=NORMAL"); return s.write.prepare(ctx, s.writer)`}},
		pkg:    "cmd/hanmadi", tests: []string{"TestSyncBeforeAnswer"},
	},
	{
		name:   "synchronous=OFF behind the check",
		breaks: "the sync returns before the 201 leaves",
		edits:  []edit{{sqliteFile, `return s.write.prepare(ctx, s.writer)`, `_, _ = s.writer.ExecContext(ctx, "PRAGMA synchronous=OFF"); return s.write.prepare(ctx, s.writer)`}},
		pkg:    "cmd/hanmadi", tests: []string{"TestSyncBeforeAnswer"},
	},
	{
		name:   "rows appended wherever the room ends",
		breaks: "an append at another position than the room's end is refused",
		edits:  []edit{{appendFile, `if h.seq != a.after {`, `if h.seq < a.after {`}},
		pkg:    "internal/chatlog", tests: []string{"TestSQLite"},
	},
	{
		name:   "a seq left out",
		breaks: "seq counts 1, 2, 3 with no gap",
		edits:  []edit{{appendFile, `a.room, h.seq+1`, `a.room, h.seq+2`}},
		pkg:    "internal/chatlog", tests: []string{"TestSQLite"},
	},
	{
		name:   "time runs backwards",
		breaks: "a row's time is never before that of the row before it",
		edits:  []edit{{appendFile, `max(ms(row.At), h.at)`, `ms(row.At)`}},
		pkg:    "internal/chatlog", tests: []string{"TestSQLite"},
	},
	{
		name:   "a full disk forgotten",
		breaks: "a failed commit is never taken for a line that is logged",
		edits:  []edit{{appendFile, `a.stored, a.err = nil, err`, `a.err = nil`}},
		pkg:    "internal/chatlog", tests: []string{"TestFullDisk"},
	},
	{
		name:   "a tail with holes",
		breaks: "the tail takes rows at its end + 1 only",
		edits:  []edit{{tailFile, `n > 0 && row.Seq != r.rows[n-1].Seq+1`, `n > 0 && row.Seq == 0`}},
		pkg:    "internal/chatlog", tests: []string{"TestTailTakesRowsAtItsEndOnly"},
	},
	{
		name:   "a tail that says that nothing follows",
		breaks: "that nothing follows is asked of the store, which other nodes write too",
		edits:  []edit{{tailFile, "|| limit <= 0 {\n\t\treturn nil", "|| limit <= 0 {\n\t\treturn []chat.Row{}"}},
		pkg:    "internal/chatlog", tests: []string{"TestTailTakesRowsAtItsEndOnly"},
	},
	{
		name:   "two writers on one file",
		breaks: "a second server refuses to start",
		edits:  []edit{{sqliteFile, `if !held {`, `if held && !held {`}},
		pkg:    "internal/chatlog", tests: []string{"TestOneWriterPerFile"},
	},
	{
		name:   "a restored log keeps its id",
		breaks: "clients whose cursors belong to lost rows start over",
		edits:  []edit{{"internal/chatlog/restore.go", `value = ? WHERE key = 'log_id'`, `value = value WHERE ? = key`}},
		pkg:    "internal/chatlog", tests: []string{"TestRestore"},
	},
}

var plantedInTheDesk = []plant{
	{
		name:   "201 before the append returns",
		breaks: "a line that was answered is in the log",
		edits: []edit{{roomFile, `stored, err := d.log.Append(ctx, r.name, st.Seq, rows)`,
			`stored, err := rows, error(nil); go d.log.Append(context.Background(), r.name, st.Seq, slices.Clone(rows))`}},
		pkg: "internal/chat", tests: []string{"TestFailingLog"},
	},
	{
		name:   "judged once",
		breaks: "a line that was overtaken is judged again",
		edits: []edit{{roomFile, `stored, err := d.log.Append(ctx, r.name, st.Seq, rows)`,
			`stored, err := d.log.Append(ctx, r.name, st.Seq, rows)
			for b := new(BehindError); errors.As(err, &b); {
				stored, err = d.log.Append(ctx, r.name, b.Rows[len(b.Rows)-1].Seq, rows)
			}`}},
		pkg: "internal/chat", tests: []string{"TestALineThatTheEndOvertakesIsRefused"},
	},
	{
		name:   "judged against the first of the batch",
		breaks: "each request is judged against what those before it leave",
		edits:  []edit{{roomFile, `st = st.Apply(req.rows[i])`, `st.Seq++`}},
		pkg:    "internal/chat", tests: []string{"TestEachOfABatchIsJudgedByWhatComesBeforeIt"},
	},
	{
		name:   "lines after the end",
		breaks: "nothing is logged after the end of a broadcast",
		edits:  []edit{{deskFile, `if !st.Live() {`, `if !st.Live() && st.Last == "" {`}},
		pkg:    "internal/chat", tests: []string{"TestNothingIsSaidOutsideOfABroadcast"},
	},
	{
		name:   "the room server's no ignored",
		breaks: "the room server's explicit no always holds",
		edits:  []edit{{"internal/chat/broadcast.go", "if !word.Live {\n\t\treturn nil, Refuse", "if !word.Live && room == \"\" {\n\t\treturn nil, Refuse"}},
		pkg:    "internal/directory", tests: []string{"TestExplicitNoAlwaysHolds"},
	},
	{
		name:   "lines queue for ever",
		breaks: "lines are refused when the presenter has been away for long",
		edits:  []edit{{deskFile, `absent && since >= d.opts.QueueFor`, `absent && since < 0`}},
		pkg:    "internal/chat", tests: []string{"TestLinesQueueWhileThePresenterIsAway"},
	},
	{
		name:   "Idempotency-Key ignored",
		breaks: "the same key gets the first answer",
		edits:  []edit{{deskFile, `idem = idemOf(draft.User.ID, draft.Key)`, `idem = idemOf(id, draft.Key)`}},
		pkg:    "internal/chat", tests: []string{"TestSameKeyGetsTheFirstAnswer", "TestSameKeyInFlight"},
	},
	{
		name:   "one's key answers another",
		breaks: "a key is its user's own",
		edits:  []edit{{deskFile, `[]byte(userID + "\x00" + key)`, `[]byte(userID[:0] + "\x00" + key)`}},
		pkg:    "internal/chat", tests: []string{"TestSameKeyGetsTheFirstAnswer"},
	},
	{
		name:   "unknown called not logged",
		breaks: "an outcome that is not known is not called a failure",
		edits:  []edit{{deskFile, `Code: LogOutcomeUnknown,`, `Code: LogUnavailable,`}},
		pkg:    "internal/chat", tests: []string{"TestFailingLog"},
	},
	{
		name:   "an endless queue",
		breaks: "a room's queue is bounded",
		edits:  []edit{{roomFile, `len(r.queue) >= d.opts.MaxQueued`, `len(r.queue) < 0`}},
		pkg:    "internal/chat", tests: []string{"TestQueueIsBounded"},
	},
	{
		name:   "no nudge",
		breaks: "sessions hear of a line at once",
		edits:  []edit{{roomFile, `d.presence.Nudge(r.name, st.Seq)`, ``}},
		pkg:    "internal/chat", tests: []string{"TestLineIsLoggedAndSessionsAreNudged"},
	},
	{
		name:   "a staff row in public",
		breaks: "a row without a public face shows its place and no more",
		edits:  []edit{{chatFile, `return Event{Seq: r.Seq, Kind: KindHidden}`, `return e`}},
		pkg:    "internal/chat", tests: []string{"TestPublicFaces"},
	},
	{
		name:   "staff details in public",
		breaks: "why a broadcast ended is for staff",
		edits:  []edit{{chatFile, `e.State, e.Title = r.Details.State, r.Details.Title`, `e.State, e.Title = r.Details.State, r.Details.Title+r.Staff.Reason`}},
		pkg:    "internal/chat", tests: []string{"TestPublicFaces"},
	},
}

var plantedInTheLinks = []plant{
	{
		name:   "no slow timer",
		breaks: "a nudge that was lost is made up for",
		edits:  []edit{{hubFile, `for room, head := range heads {`, `for room, head := range heads { if head > 0 { continue }`}},
		pkg:    "internal/live", tests: []string{"TestTheSlowTimerMakesUpForALostNudge"},
	},
	{
		name:   "the older link stays on its node",
		breaks: "one link per presenter",
		edits:  []edit{{hubFile, `older.end(endReplaced)`, `_ = older`}},
		pkg:    "internal/live", tests: []string{"TestAReplacedLinkThatIsBlockedIsGoneInFiveSeconds"},
	},
	{
		name:   "the older link stays on another node",
		breaks: "one link per presenter",
		edits:  []edit{{"internal/live/frames.go", `row.Kind != chat.KindMessage`, `row.Kind == chat.KindBroadcast`}},
		pkg:    "internal/live", tests: []string{"TestAnOlderLinkOnAnotherNodeHearsByTheSlowTimer"},
	},
	{
		name:   "the cursor moves before the write",
		breaks: "a session's cursor is what its socket has taken",
		edits: []edit{{writerFile, `for _, message := range messages {`,
			`s.movedTo(f.to); for _, message := range messages {`}},
		pkg: "internal/live", tests: []string{"TestTheLagOfAStuckLinkIsSeen"},
	},
	{
		name:   "a frame over 14 KiB",
		breaks: "a frame is one DataChannel message everywhere",
		edits:  []edit{{"internal/live/frames.go", `> wire.MaxEventsFrame {`, `> wire.MaxEventsFrame+100 {`}},
		pkg:    "internal/live", tests: []string{"TestBuildFillsFramesToTheBrim"},
	},
	{
		name:   "a frame signed as something else",
		breaks: "the signature is over the payload's bytes",
		edits:  []edit{{"internal/live/frames.go", `f.key.Sign(payload)`, `f.key.Sign(head)`}},
		pkg:    "internal/live", tests: []string{"TestALinkIsWelcomedAndStartsAtItsBroadcastsFirstRow"},
	},
	{
		name:   "silence is not counted",
		breaks: "two heartbeats without an answer end a link",
		edits:  []edit{{"internal/live/session.go", `s.unanswered++`, ``}},
		pkg:    "internal/live", tests: []string{"TestALinkThatLeavesHeartbeatsUnansweredIsClosedAtTheThird"},
	},
	{
		name:   "a link outlives its token",
		breaks: "an expired token ends the link after 60 s",
		edits:  []edit{{"internal/live/session.go", `s.expires.Add(o.TokenGrace)`, `s.expires.Add(1000*o.TokenGrace)`}},
		pkg:    "internal/live", tests: []string{"TestALinkEndsSixtySecondsAfterItsToken"},
	},
	{
		name:   "a peer that never reads stays",
		breaks: "a link without progress for 60 s is closed",
		edits:  []edit{{hubFile, `setDefault(&o.SlowAfter, 60*time.Second)`, `setDefault(&o.SlowAfter, 60*time.Hour)`}},
		pkg:    "internal/live", tests: []string{"TestAPageThatDoesNotReadIsClosedAndLosesNothing"},
	},
	{
		name:   "a drain takes newcomers",
		breaks: "a node that drains refuses new links",
		edits:  []edit{{hubFile, `case h.draining:`, `case h.draining && false:`}},
		pkg:    "internal/live", tests: []string{"TestNewcomersToADrainingNodeAreToldSo"},
	},
	{
		name:   "goodbyes all at once",
		breaks: "a drain spreads its goodbyes",
		edits:  []edit{{hubFile, `over/time.Duration(len(leaving))`, `over/1e6`}},
		pkg:    "internal/live", tests: []string{"TestDrainSpreadsItsGoodbyesEvenly"},
	},
	{
		name:   "a broadcast ended over its presenter's head",
		breaks: "a link that is coming in keeps its broadcast",
		edits:  []edit{{"internal/directory/registry.go", `return absent && since >= g.endAfter`, `_ = absent; return since >= 0`}},
		pkg:    "internal/directory", tests: []string{"TestALinkThatIsOnItsWayKeepsItsBroadcast"},
	},
	{
		name:   "frames without an end",
		breaks: "a message of a peer is bounded in memory",
		edits:  []edit{{"internal/socket/socket.go", `io.LimitReader(r, c.maxMessage+1)`, `r`}},
		pkg:    "internal/socket", tests: []string{"TestAMessageOverTheBoundIsNotHeld"},
	},
	{
		name:   "the kernel holds megabytes",
		breaks: "a peer that does not read costs bounded memory",
		edits:  []edit{{"internal/socket/socket.go", `_ = tcp.SetWriteBuffer(SendBuffer)`, `_ = tcp`}},
		pkg:    "internal/socket", tests: []string{"TestAcceptBoundsTheSendBuffer"},
	},
}

var plantedAtTheDoor = []plant{
	{
		name:   "alg none",
		breaks: "a token that nobody signed is refused",
		edits:  []edit{{"internal/token/keys.go", "\terr := errMethod\n", "\terr := errMethod\n\tif t.alg == \"none\" && len(r) > 0 {\n\t\treturn r[0], nil\n\t}\n"}},
		pkg:    "internal/token", tests: []string{"TestVerifyRefuses"},
	},
	{
		name:   "a public key as a secret",
		breaks: "a key serves one algorithm, whatever a token says",
		edits:  []edit{{"internal/token/keys.go", `k.method.Alg() != t.alg ||`, `k.material == nil ||`}},
		pkg:    "internal/token", tests: []string{"TestKeyConfusion"},
	},
	{
		name:   "tokens for ever",
		breaks: "a token without exp is refused",
		edits: []edit{
			{rulesFile, `jwt.WithExpirationRequired(), `, ``},
			{"internal/token/claims.go", `return chat.User{}, invalid(errors.New("exp is missing"))`, `exp = &jwt.NumericDate{Time: time.Now().Add(time.Hour)}`},
		},
		pkg: "internal/token", tests: []string{"TestVerifyRefuses"},
	},
	{
		name:   "a token remembered past its end",
		breaks: "a token holds until its exp and no longer",
		edits: []edit{
			{rulesFile, `min(maxCachedFor, time.Until(e.Value.Expires.Add(leeway)))`, `maxCachedFor`},
			{"internal/token/token.go", `!time.Now().Before(u.Expires.Add(leeway))`, `time.Now().IsZero()`},
		},
		pkg: "internal/token", tests: []string{"TestCachedTokenExpires"},
	},
	{
		name:   "anybody's gateway",
		breaks: "identity headers need the gateway's secret",
		edits:  []edit{{gateFile, `!g.Trusts(peer) || !g.knows(r.Header.Values(g.Header))`, `!g.Trusts(peer)`}},
		pkg:    "internal/token", tests: []string{"TestGatewayIdentity"},
	},
	{
		name:   "the left-most address",
		breaks: "a client cannot choose the address that limits are counted for",
		edits:  []edit{{gateFile, `slices.Backward(hops)`, `hops`}},
		pkg:    "internal/token", tests: []string{"TestAddressThatLimitsAreCountedFor"},
	},
	{
		name:   "any Host",
		breaks: "a page whose name was pointed at this machine is refused (DNS rebinding)",
		edits:  []edit{{"internal/web/handler.go", `len(s.Hosts) > 0 && !`, `len(s.Hosts) > 1000 && !`}},
		pkg:    "internal/web", tests: []string{"TestForeignHosts"},
	},
	{
		name:   "dev serves any Host",
		breaks: "dev takes its own Host headers only",
		edits:  []edit{{"cmd/hanmadi/dev.go", `set.hosts, set.Link.Origins =`, `_, set.Link.Origins =`}},
		pkg:    "cmd/hanmadi", tests: []string{"TestDevHost"},
	},
	{
		name:   "dev on every interface",
		breaks: "dev serves this machine only",
		edits:  []edit{{"cmd/hanmadi/dev.go", `if !ip.IP.IsLoopback() {`, `if ip.IP.IsMulticast() {`}},
		pkg:    "cmd/hanmadi", tests: []string{"TestDevServesThisMachineOnly"},
	},
	{
		name:   "any Origin",
		breaks: "another site's page opens no link",
		edits:  []edit{{"internal/web/link.go", `if !s.originAllowed(r) {`, `if !s.originAllowed(r) && original != nil {`}},
		pkg:    "internal/web", tests: []string{"TestUpgradeOfALink"},
	},
	{
		name:   "bodies without an end",
		breaks: "a body is bounded",
		edits:  []edit{{"internal/web/rooms.go", `http.MaxBytesReader(w, r.Body, MaxBody)`, `r.Body`}},
		pkg:    "internal/web", tests: []string{"TestSayRefusals"},
	},
	{
		name:   "a name repeated",
		breaks: "a body that two readers would understand differently is refused",
		edits:  []edit{{"internal/wire/decode.go", `if _, ok := names[depth][name]; ok {`, `if _, ok := names[depth][name]; ok && depth > 1 {`}},
		pkg:    "internal/wire", tests: []string{"TestDecodeRefusals"},
	},
	{
		name:   "operators by the users' face",
		breaks: "operators' calls need an operator",
		edits:  []edit{{"internal/web/identity.go", `err == nil && user.Role != chat.RoleOperator`, `err == nil && user.Role != chat.RoleOperator && user.ID == ""`}},
		pkg:    "internal/web", tests: []string{"TestOperatorsBroadcasts"},
	},
	{
		name:   "requests logged whole",
		breaks: "tokens and texts appear in no log line",
		edits:  []edit{{"internal/web/handler.go", `slog.String("route", rec.route)`, `slog.String("route", rec.route), slog.String("url", r.URL.String())`}},
		pkg:    "cmd/hanmadi", tests: []string{"TestLogTellsNothingOfWhatIsSaid"},
	},
	{
		name:   "requests cut off by a stop",
		breaks: "requests in flight are finished",
		edits:  []edit{{"cmd/hanmadi/app.go", `server.Shutdown(ctx)`, `server.Close()`}},
		pkg:    "cmd/hanmadi", tests: []string{"TestStopFinishesRequestsInFlight"},
	},
	{
		name:   "listen believes every frame",
		breaks: "a frame that the server did not sign is not shown",
		edits:  []edit{{"cmd/hanmadi/listen.go", `[]byte(f.Payload)); err != nil {`, `[]byte(f.Payload)); err != nil && f.Sig == "" {`}},
		pkg:    "cmd/hanmadi", tests: []string{"TestListenVerifiesAndShowsControlCharacters"},
	},
	{
		name:   "the environment loses to the file",
		breaks: "the environment beats the file",
		edits:  []edit{{"cmd/hanmadi/configfile.go", `if _, set := f.env(env); set {`, `if _, set := f.env(env); set && env == "" {`}},
		pkg:    "cmd/hanmadi", tests: []string{"TestOrderOfSettings"},
	},
}
