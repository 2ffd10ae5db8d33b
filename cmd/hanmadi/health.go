package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"
)

type healthCmd struct {
	Timeout     time.Duration `default:"3s" help:"How long to wait for the answer."`
	ConfigPath  string        `name:"config" placeholder:"FILE" help:"YAML file of settings, as for serve."`
	AdminListen string        `default:"127.0.0.1:8081" help:"Address that serve has for operators; with dev, the one that it serves on."`
}

// Help is shown under --help.
func (healthCmd) Help() string {
	return "Asks /readyz of the server on this machine. Exit status: 0 when it takes requests, 1 when it does not or does not answer. For containers and scripts, which need no other program for it."
}

// Run asks and prints what the server said of itself.
func (c *healthCmd) Run(s streams) error {
	addr, err := dialable(c.AdminListen)
	if err != nil {
		return usageError{fmt.Errorf("admin_listen: %w", err)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return usageError{err}
	}
	// No proxy: the server is on this machine.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxHealth))
	if err != nil {
		return err
	}
	var said struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(data, &said); err != nil || said.Status == "" {
		return fmt.Errorf("http://%s/readyz is not hanmadi's: it answered %d without a status", addr, resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", said.Status)
	}
	fmt.Fprintln(s.out, said.Status)
	return nil
}

// maxHealth bounds the answer that is read, in bytes.
const maxHealth = 4 << 10

// dialable is the address to reach a listener at from its own machine: one that
// listens on all addresses is reached over loopback.
func dialable(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "", err == nil && ip.IsUnspecified() && ip.Is4():
		host = "127.0.0.1"
	case err == nil && ip.IsUnspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port), nil
}
