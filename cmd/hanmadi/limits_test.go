package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// The settings reach what they are about, under their names in the environment.
func TestLimitsOfTheProgram(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_LIMITS_USER_PER_30S=3", "HANMADI_LIMITS_ATTEMPTS_PER_30S=30")
	s.openBroadcast("7")
	post := func(token, body string) (status int, code, policy string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("/v1/rooms/7/messages"), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := fresh.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var p problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, p.Code, resp.Header.Get("RateLimit-Policy")
	}
	// until says how often it took to get an answer: a slow machine may get some
	// tokens back in the meantime.
	until := func(token, body, want string) int {
		t.Helper()
		for n := range 60 {
			if _, code, _ := post(token, body); code == want {
				return n
			}
		}
		t.Errorf("60 times %s, and never %s", body, want)
		return 0
	}
	viewer := mint(t, "42", "")
	if status, code, policy := post(viewer, `{"text":"한 줄"}`); status != http.StatusCreated || policy != `"user";q=3;w=30` {
		t.Errorf("a line: %d %s, policy %s", status, code, policy)
	}
	if n := until(viewer, `{"text":"한 줄"}`, "rate.user"); n < 2 {
		t.Errorf("%d lines were said, want 3", n+1)
	}
	if n := until("forged", `{"text":"한 줄"}`, "rate.requests"); n < 9 {
		t.Errorf("after %d more refusals nobody listens, want 9 or 10", n)
	}
	var me struct {
		User      string `json:"user"`
		Role      string `json:"role"`
		CanSend   bool   `json:"can_send"`
		MaxLength int    `json:"max_length"`
		Remaining int    `json:"remaining"`
	}
	eventually(t, "the presenter is listened to again", func() bool {
		return request(t, http.MethodGet, s.url("/v1/rooms/7/me"), mint(t, "7", ""), "", &me) == http.StatusOK
	})
	if me.User != "7" || me.Role != "presenter" || !me.CanSend || me.MaxLength != 500 || me.Remaining != 3 {
		t.Errorf("me: %+v", me)
	}
}
