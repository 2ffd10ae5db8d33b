package chat_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

func TestCatalogueIsWhole(t *testing.T) {
	hangul := regexp.MustCompile(`\p{Hangul}`)
	params := regexp.MustCompile(`\{(\w+)\}`)
	for code, e := range chat.Catalogue() {
		if e.Status < 400 || e.Status > 599 {
			t.Errorf("%s: status %d", code, e.Status)
		}
		if e.Title == "" || e.English == "" || !hangul.MatchString(e.Korean) || hangul.MatchString(e.English) {
			t.Errorf("%s lacks a title or a sentence in a language", code)
		}
		ko, en := fmt.Sprint(names(params, e.Korean)), fmt.Sprint(names(params, e.English))
		if ko != en {
			t.Errorf("%s names %s in Korean and %s in English", code, ko, en)
		}
		if strings.Contains(e.Korean, "{wait}") && e.Retry != chat.RetryLater {
			t.Errorf("%s tells a time to wait and says %s", code, e.Retry)
		}
		if !regexp.MustCompile(`^[a-z_]+(\.[a-z_]+)?$`).MatchString(string(code)) {
			t.Errorf("%q is not a code", code)
		}
	}
}

func names(re *regexp.Regexp, s string) map[string]bool {
	all := map[string]bool{}
	for _, m := range re.FindAllStringSubmatch(s, -1) {
		all[m[1]] = true
	}
	return all
}

func TestDetailFillsItsNumbers(t *testing.T) {
	for _, c := range []struct {
		ref        *chat.Refusal
		lang       chat.Lang
		wantDetail string
	}{
		{&chat.Refusal{Code: chat.MessageTooLong, Params: map[string]any{"max": 500, "length": 612}}, chat.Korean, "메시지는 500자까지 보낼 수 있습니다. (현재 612자)"},
		{&chat.Refusal{Code: chat.PresenterGone, RetryAfter: 90 * time.Second}, chat.Korean, "방송자와 연결이 끊겼습니다. 1분 30초 후 다시 보내 주세요."},
		{&chat.Refusal{Code: chat.PresenterGone, RetryAfter: 90 * time.Second}, chat.English, "The presenter is disconnected. Please send it again in 1 min 30 s."},
		{chat.Refuse(chat.BroadcastEndedCode), chat.Korean, "방송 종료되었습니다"},
		{chat.Refuse("no.such.code"), chat.English, chat.Lookup(chat.Internal).English},
	} {
		if got := c.ref.Detail(c.lang); got != c.wantDetail {
			t.Errorf("%s: got %q, want %q", c.ref.Code, got, c.wantDetail)
		}
	}
}

func TestWait(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1초", time.Millisecond: "1초", time.Second: "1초", 1500 * time.Millisecond: "2초", time.Minute: "1분",
		90 * time.Second: "1분 30초", time.Hour: "1시간", 2*time.Hour + 3*time.Second: "2시간 3초", 36 * time.Hour: "36시간",
	} {
		if got := chat.Wait(d, chat.Korean); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{
		"7": true, "a": true, "A-b_9": true, strings.Repeat("x", 64): true,
		"": false, "-a": false, "_a": false, strings.Repeat("x", 65): false, "a b": false, "가": false, "a\n": false, "a/b": false, "a.b": false,
	} {
		if got := chat.ValidID(id); got != want {
			t.Errorf("%q: got %v, want %v", id, got, want)
		}
	}
}

func TestPublicFaces(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 123e6, time.UTC)
	for _, c := range []struct {
		name string
		row  chat.Row
		want string
	}{
		{"a line", chat.Row{Seq: 5, ID: "I", At: at, Broadcast: "881", Kind: chat.KindMessage, Text: "안녕", User: chat.Author{ID: "42", Nickname: "하늘"}},
			`{"seq":5,"id":"I","at":"2026-11-22T10:00:00.123Z","broadcast":"881","kind":"message","user":{"id":"42","nickname":"하늘","role":"viewer"},"text":"안녕"}`},
		{"a reply of the presenter's, with attrs", chat.Row{Seq: 6, ID: "I", At: at, Kind: chat.KindMessage, Text: "네", User: chat.Author{ID: "7", Nickname: "나"},
			Details: chat.Details{Role: chat.RolePresenter, Attrs: json.RawMessage(`{"badge":"x"}`), Reply: &chat.Reply{Seq: 5, Nickname: "하늘", Text: "안녕"}}},
			`{"seq":6,"id":"I","at":"2026-11-22T10:00:00.123Z","kind":"message","user":{"id":"7","nickname":"나","role":"presenter","attrs":{"badge":"x"}},"text":"네","reply":{"seq":5,"nickname":"하늘","text":"안녕"}}`},
		{"a broadcast that ended, without why", chat.Row{Seq: 7, ID: "I", At: at, Broadcast: "881", Kind: chat.KindBroadcast,
			Details: chat.Details{State: chat.BroadcastEnded}, Staff: chat.StaffDetails{Reason: "operator"}},
			`{"seq":7,"id":"I","at":"2026-11-22T10:00:00.123Z","broadcast":"881","kind":"broadcast","state":"ended"}`},
		{"a link keeps its place", chat.Row{Seq: 8, ID: "I", At: at, Kind: chat.KindLink, Staff: chat.StaffDetails{Session: "S"}, User: chat.Author{ID: "7"}},
			`{"seq":8,"kind":"hidden"}`},
		{"what a newer version wrote keeps its place", chat.Row{Seq: 9, ID: "I", At: at, Kind: "poll", Text: "?"}, `{"seq":9,"kind":"hidden"}`},
	} {
		got, err := json.Marshal(c.row.Event())
		if err != nil || string(got) != c.want {
			t.Errorf("%s:\n got %s %v\nwant %s", c.name, got, err, c.want)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		user chat.User
		want chat.Role
	}{{chat.User{ID: "7"}, chat.RolePresenter}, {chat.User{ID: "8"}, chat.RoleViewer}, {chat.User{ID: "7", Role: chat.RoleOperator}, chat.RoleOperator}} {
		if got := c.user.RoleIn("7"); got != c.want {
			t.Errorf("%+v in room 7: got %s, want %s", c.user, got, c.want)
		}
	}
}
