// Command containers checks a Dockerfile and a compose file without a container
// engine: by the rules of "docker build --check", and by the specification of
// Compose. With -print it tells instead, as JSON, what the containers of the
// services would run, each field as the image has it unless the service says
// otherwise.
//
//	containers [-print] DOCKERFILE COMPOSE
//
// It is a module of its own, so that neither the product nor the other tools
// depend on what it needs.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

// Container is what runs for a service.
type Container struct {
	Service     string            `json:"service"`
	Hostname    string            `json:"hostname"`
	Command     []string          `json:"command"` // the entrypoint and its arguments
	Environment map[string]string `json:"environment"`
	Exposed     []string          `json:"exposed"`   // ports, as 8086/tcp
	Published   []string          `json:"published"` // ports of the container that the host has too
	Volumes     []string          `json:"volumes"`   // folders of the container that outlive it
	Declared    []string          `json:"declared"`  // folders that the image declares as volumes
	Health      []string          `json:"health"`    // the command that tells whether it is well
}

func main() {
	show := flag.Bool("print", false, "tell what the containers would run")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: containers [-print] DOCKERFILE COMPOSE")
		os.Exit(2)
	}
	if err := run(context.Background(), flag.Arg(0), flag.Arg(1), *show, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "containers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dockerfile, compose string, show bool, out io.Writer) error {
	image, err := checkImage(ctx, dockerfile, out)
	if err != nil {
		return err
	}
	project, err := loadProject(ctx, compose)
	if err != nil {
		return err
	}
	if !show {
		return nil
	}
	var all []Container
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		s := project.Services[name]
		all = append(all, container(&s, &image.Config))
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(all)
}

// checkImage prints what is wrong with a Dockerfile and returns the image that it makes.
func checkImage(ctx context.Context, path string, out io.Writer) (*dockerspec.DockerOCIImage, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	warnings := 0
	built, err := dockerfile2llb.Dockerfile2LLB(ctx, text, dockerfile2llb.ConvertOpt{MetaResolver: nobody{}, AllStages: true,
		Warn: func(rule, _, url, message string, at []parser.Range) {
			warnings++
			line := 0
			if len(at) > 0 {
				line = at[0].Start.Line
			}
			fmt.Fprintf(out, "%s:%d: %s: %s (%s)\n", path, line, rule, message, url)
		}})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if warnings > 0 {
		return nil, fmt.Errorf("%s: %d warnings", path, warnings)
	}
	return built.Image, nil
}

// nobody knows nothing of the images that others have made: they are not asked for.
type nobody struct{}

// ResolveImageConfig implements llb.ImageMetaResolver.
func (nobody) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, digest.FromString(ref), []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`), nil
}

// loadProject reads a compose file, which must be as the specification wants it
// and name files that are there.
func loadProject(ctx context.Context, path string) (*types.Project, error) {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	details := types.ConfigDetails{WorkingDir: dir, ConfigFiles: []types.ConfigFile{{Filename: path}}, Environment: types.Mapping{}}
	p, err := loader.LoadWithContext(ctx, details, func(o *loader.Options) { o.SetProjectName("dsdb", true) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for name, s := range p.Services {
		if s.Build == nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
			return nil, fmt.Errorf("%s: service %s: %w", path, name, err)
		}
	}
	return p, nil
}

// container merges what a service says with what its image does.
func container(s *types.ServiceConfig, image *dockerspec.DockerOCIImageConfig) Container {
	c := Container{Service: s.Name, Hostname: s.Hostname, Environment: map[string]string{},
		Exposed: slices.Sorted(maps.Keys(image.ExposedPorts)), Declared: slices.Sorted(maps.Keys(image.Volumes))}
	entry, args := s.Entrypoint, s.Command
	if entry == nil {
		entry = image.Entrypoint
		if args == nil {
			args = image.Cmd
		}
	}
	c.Command = slices.Concat(entry, args)
	for _, kv := range image.Env {
		k, v, _ := strings.Cut(kv, "=")
		c.Environment[k] = v
	}
	for k, v := range s.Environment {
		if v != nil {
			c.Environment[k] = *v
		}
	}
	for _, p := range s.Ports {
		c.Published = append(c.Published, fmt.Sprintf("%d/%s", p.Target, cmp.Or(p.Protocol, "tcp")))
	}
	for _, v := range s.Volumes {
		c.Volumes = append(c.Volumes, v.Target)
	}
	switch {
	case s.HealthCheck != nil:
		c.Health = s.HealthCheck.Test
	case image.Healthcheck != nil:
		c.Health = image.Healthcheck.Test
	}
	return c
}
