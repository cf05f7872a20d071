# make demo    build, start a node, load real data, ask, kill, ask again
# make test    everything that must hold (with the race detector where there is a C compiler)
# make check   before every commit, under two minutes
# make lint    gofmt, vet, staticcheck; the rules of docker build --check, the specification of Compose
# make sim     a thousand logs and a hundred whole clusters under simulated clocks, networks and disks (SEEDS=N STORES=N)
# make mutants   plants bugs, one after the other, and has each found by the test that is named for it (MUTANT=name; root, iproute2)
# make chaos   real nodes in network namespaces, killed, paused, cut off (root, iproute2; SECONDS=60 NODES=3 SEED=n)
# make fuzz T=10m   every fuzz target for T
# make bench   the benchmarks beside the code, with benchstat
# make packages   the .deb and the .rpm, in bin/
# make test-packages   .deb, .rpm and what the Dockerfile runs, and the guides, on hosts made of namespaces (root, Debian)
# make test-upgrade   a cluster of the previous release, upgraded node by node under load (root, iproute2)
# make build   bin/dsdbd, bin/dsdb, bin/dsdb-bench
SHELL   := /bin/sh
T       ?= 20s
COUNT   ?= 6
SEEDS   ?= 1000
STORES  ?= 100
SECONDS ?= 60
NODES   ?= 3
# The release that the one to come replaces. There is none yet: a commit whose clusters go on with this one's, and which stops at what it does not know.
PREVIOUS ?= e36adc1
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)
TOOL    := go tool -modfile=tools/go.mod
TESTSUM := $(TOOL) gotestsum --format pkgname --format-hide-empty-pkg
HAVE_CC := $(shell command -v $$(go env CC) >/dev/null 2>&1 && echo yes)
ifeq ($(HAVE_CC),yes)
RACE := -race
endif

.PHONY: build demo test packages test-packages test-upgrade lint check sim mutants chaos fuzz bench clean help
help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

packages:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(LDFLAGS)' -o bin/ ./cmd/...
	@VERSION='$(VERSION)' NFPM='$(TOOL) nfpm' sh packaging/build.sh

test-packages: packages
	$(if $(shell command -v lintian),lintian --fail-on error bin/*.deb,@echo "lintian is not installed: apt-get install lintian")
	go test -count=1 -timeout 20m -tags packages ./internal/chaos -run 'TestPackage|TestContainers|TestGuides|TestClusteringGuide' -v -packages=$(CURDIR)/bin

# The daemon of the previous release is built once.
bin/previous/$(PREVIOUS):
	rm -rf bin/previous && mkdir -p bin/previous/src
	git archive $(PREVIOUS) | tar -x -C bin/previous/src
	cd bin/previous/src && CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(PREVIOUS)' -o ../$(PREVIOUS) ./cmd/dsdbd
	rm -rf bin/previous/src

test-upgrade: bin/previous/$(PREVIOUS)
	DSDB_PREVIOUS=$(CURDIR)/bin/previous/$(PREVIOUS) go test -count=1 -timeout 10m -tags upgrade ./internal/chaos -run TestS26C29RollingUpgrade -v

demo: build
	@sh testdata/demo.sh

test: build
	@$(if $(RACE),echo "race detector: on",echo "race detector: off (no C compiler found)")
	@$(if $(RACE),CGO_ENABLED=1) $(TESTSUM) -- $(RACE) -timeout 14m ./...

lint:
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt wants to change:"; echo "$$out"; exit 1; }
	go vet ./...
	GOARCH=arm64 CGO_ENABLED=0 go vet ./...
	$(TOOL) staticcheck ./...
	go run -C tools/containers . $(CURDIR)/packaging/Dockerfile $(CURDIR)/packaging/compose.yaml

check: lint
	@$(TESTSUM) -- -short -timeout 2m ./...

sim:
	go test -count=1 -timeout 120m ./internal/sim -run 'TestSeeds|TestStores' -seeds=$(SEEDS) -stores=$(STORES) -v

mutants: bin/previous/$(PREVIOUS)
	DSDB_PREVIOUS=$(CURDIR)/bin/previous/$(PREVIOUS) go test -count=1 -timeout 20m -tags mutants ./internal/mutant -run TestMutants -v $(if $(MUTANT),-mutant=$(MUTANT))

chaos:
	go test -count=1 -timeout 30m ./internal/chaos -run TestChaos -v -seconds=$(SECONDS) -nodes=$(NODES) -least=500 $(if $(SEED),-seed=$(SEED))

# Each target alone: go's fuzzer takes one at a time.
fuzz:
	@go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do \
	  grep -ho '^func Fuzz[A-Za-z0-9_]*' "$$dir"/*_test.go 2>/dev/null | sed 's/^func //' | sort -u | while read -r f; do \
	    echo "== $$pkg $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(T) -fuzzminimizetime 1x "$$pkg" </dev/null || exit 1; \
	  done || exit 1; \
	done

bench:
	@go test -run '^$$' -bench . -benchmem -count $(COUNT) ./... | tee bin/bench.txt
	@$(TOOL) benchstat bin/bench.txt

clean:
	rm -rf bin
