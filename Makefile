# Every target needs Go and make only, unless it says otherwise. `make help` lists them.
SHELL := /bin/sh
GO    ?= go
export CGO_ENABLED ?= 0

BINARIES := ruche-node ruche-coordinator ruche ruche-demo

.PHONY: help build demo test race faults check bench fuzz failover kills powercuts partitions durability mutants generate pretrain clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## static binaries in bin/
	@mkdir -p bin
	$(GO) build -trimpath -o bin/ $(addprefix ./cmd/,$(BINARIES))

demo: build ## a consortium and its devices on this machine, as real processes; report and plot in bin/
	bin/ruche-demo --report bin/demo-report.json

test: ## every test; says in one line what it skipped
	@$(GO) run ./cmd/internal/testrun -timeout 30m ./...

race: ## the protocol's tests under the race detector (needs gcc)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m ./coordinator/... ./storage/... ./aggregation/committee ./node/participant ./cmd/internal/lab

faults: ## fails and kills at every durable step, before and after, and looks at everything
	$(GO) test -tags faults -run Fault -timeout 30m ./storage/... ./coordinator/... ./node/... ./cmd/internal/lab

check: ## format, vet, generated code, then the tests
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(MAKE) generate
	git diff --exit-code -- coordinator/coordpb
	$(MAKE) test

bench: ## benchmarks; ratios against a peer come from one run
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...

fuzz: ## every fuzz target for FUZZTIME each (default 10s)
	@for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg 2>/dev/null | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-10s} -fuzzminimizetime 10x $$pkg || exit 1; \
	  done; done

kills: build ## SIGKILL members and devices of a running consortium (KILLS=40), then look for anything lost
	$(GO) run ./cmd/internal/chaos kills --kills $${KILLS:-40} --seed $${SEED:-1} --out bin/kills.json

failover: build ## how long devices wait when the leader of a round dies or stops (KILLS=20)
	$(GO) run ./cmd/internal/chaos failover --kills $${KILLS:-20} --out bin/failover.json

powercuts: build ## cut the power of members' disks on loop images (CUTS=20), with a control that must lose (needs root)
	$(GO) build -o bin/chaos ./cmd/internal/chaos
	bin/chaos powercuts --cuts $${CUTS:-20} --seed $${SEED:-1} --out bin/powercuts.json

partitions: build ## cut links between members in network namespaces (PARTITIONS=20; needs root)
	$(GO) build -o bin/chaos ./cmd/internal/chaos
	bin/chaos partitions --partitions $${PARTITIONS:-20} $${PROXY:+--proxy} --seed $${SEED:-1} --out bin/partitions.json

durability: ## docs/benchmarks/durability.md again from the results beside it; with RUN=1 or TESTS=1 after running them
	@if [ -n "$$RUN" ]; then for layer in kills failover powercuts partitions; do $(MAKE) $$layer && cp bin/$$layer.json docs/benchmarks/ || exit 1; done; fi
	@if [ -n "$$TESTS" ]; then $(GO) run ./cmd/internal/chaos tests --results docs/benchmarks || exit 1; fi
	$(GO) run ./cmd/internal/chaos report

mutants: ## the product with one check removed at a time: a test must notice each
	@$(GO) run ./cmd/internal/mutants

generate: ## protobuf code, without protoc
	cd coordinator/coordpb/_gen && $(GO) run .

pretrain: ## make testdata/models/tiny again and check its recorded hash (about 15 minutes)
	$(GO) run ./cmd/internal/pretrain -check

clean: ## remove bin/
	rm -rf bin
