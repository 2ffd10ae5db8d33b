package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"
)

// streams are what the program reads and writes besides files and sockets.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// commands is the command line. Every command's Run gets the streams and the
// signals that ask the program to stop.
type commands struct {
	Dev         devCmd         `cmd:"" help:"Run everything on this machine: nothing to install, nothing to configure."`
	Serve       serveCmd       `cmd:"" help:"Run beside a platform, configured by file, environment and flags (rising in that order)."`
	CheckConfig checkConfigCmd `cmd:"" help:"Say whether serve would start with this configuration, and show it without its secrets."`
	Health      healthCmd      `cmd:"" help:"Say whether the server on this machine takes requests."`
	Token       tokenCmd       `cmd:"" help:"Make a token, for trying things out."`
	Say         sayCmd         `cmd:"" help:"Say a line in a room."`
	Listen      listenCmd      `cmd:"" help:"Open a presenter's link in this terminal and print what is said."`
	Log         logCmd         `cmd:"" help:"Export, back up, check and restore a log."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

const description = `Hanmadi: chat for live broadcasts.

Every setting of dev and serve can stand in a YAML file (--config, HANMADI_CONFIG), in the environment, or be a flag.
Secrets have no flags: give them as HANMADI_TOKEN_SECRET, or in a file as HANMADI_TOKEN_SECRET_FILE, and so on.
Exit status: 0 well, 1 failed, 2 used wrongly.`

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// exited carries an exit code out of the command-line library, which calls an
// exit function where we want to return.
type exited int

// run is the whole program: arguments and streams in, an exit code out.
func run(args []string, io streams, signals <-chan os.Signal) (code int) {
	defer func() {
		if p := recover(); p != nil {
			c, ok := p.(exited)
			if !ok {
				panic(p)
			}
			code = int(c)
		}
	}()
	file, err := readConfigFile(args, os.LookupEnv)
	if err != nil {
		return fail(io, exitUsage, err)
	}
	var cmds commands
	parser, err := kong.New(&cmds, kong.Name("hanmadi"), kong.Description(description), kong.UsageOnError(),
		kong.Writers(io.out, io.err), kong.Exit(func(c int) { panic(exited(c)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.PostBuild(nameVariables), kong.Resolvers(file))
	if err != nil {
		return fail(io, exitFailed, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		return fail(io, exitUsage, err)
	}
	err = ctx.Run(io, file, signals)
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return fail(io, exitUsage, err)
	case err != nil:
		return fail(io, exitFailed, err)
	}
	return exitOK
}

// usageError is a mistake in how the program was called or configured.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func fail(io streams, code int, err error) int {
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintln(io.err, "hanmadi:", line)
	}
	return code
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(io streams) error {
	fmt.Fprintln(io.out, "hanmadi", version())
	return nil
}

// version is the module's, as the build knows it, with the commit where there is one.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && !strings.Contains(v, s.Value[:min(12, len(s.Value))]) {
			v += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return v + " " + info.GoVersion
}
