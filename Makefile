# Every target sets up by itself what it needs; a fresh clone needs nothing done by hand before.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup first demo demo-docker test test-live test-fleet test-partitions test-long test-all test-pythons test-install test-packages packages check fuzz chaos chaos-all live live-all long soak partitions verify verify-all lint format diagrams man bench bench-etcd bench-omaha bench-service bench-grants bench-policy bench-preview bench-page bench-sidekick bench-compare pin sbom audit etcd docker systemd clean

# another Python, in an environment of its own (.venv-3.11.2) beside .venv: make test python=/usr/bin/python3
ifdef python
  version := $(shell $(python) -c 'import platform; print(platform.python_version())')
  $(if $(version),,$(error python=$(python): no such Python))
  venv := .venv-$(version)
else
  venv := .venv
endif
bin := $(venv)/bin
stamp := $(venv)/stamp
programs := $(venv)/programs
checkers := $(venv)/checkers
etcd := .cache/etcd/bin/etcd
# a part of any ring: make test tests="tests/core -k queue"
tests ?=
# one part of a ring: make test-long sample=1/4
ifdef sample
  export OUTRIDER_TEST_SAMPLE := $(sample)
endif
# tests side by side, more than there are processors because many of them wait; 0: one after the other
workers ?= $(shell expr $$(nproc) + 2)
pytest = $(bin)/python -m pytest --dist loadscope
# a run starts hundreds of programs: each would compile all it imports
unexport PYTHONDONTWRITEBYTECODE

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(stamp) $(programs) $(checkers) ## make .venv: pinned packages with checked hashes, and outrider in editable mode (python=/usr/bin/python3)

# by content, not by time: a checkout gives every file a new time, and nothing needs installing again for that
$(stamp): pyproject.toml constraints.txt tools/setup.sh
	@if [ -x $(bin)/python ] && [ -x $(bin)/outrider ] && \
	  [ "$$(cat $^ | cksum)" = "$$(cat $@ 2>/dev/null)" ]; \
	then touch $@; else $(if $(python),PYTHON=$(python)) tools/setup.sh $(venv); fi

# the programs that the demo and the outer rings start, and what lint runs; the first ring needs the stamp alone
$(programs) $(checkers): constraints.txt tools/setup.sh | $(stamp)
	@if [ "$$(cat $^ | cksum)" = "$$(cat $@ 2>/dev/null)" ]; then touch $@; else tools/setup.sh $(@F) $(venv); fi

demo: setup ## three instances behind a real Traefik go from 1.0.0 to 2.0.0 under load, and a bad 3.0.0 is stopped
	$(bin)/outrider demo

demo-docker: setup docker ## the same with containers, from a registry of its own (docker-registry, busybox-static)
	$(bin)/outrider demo --runtime docker

# what the first ring needs: pip and apt wait for their servers, each while the other works
first:
	@$(MAKE) --no-print-directory --jobs 2 $(stamp) etcd

# Rings: a test's path decides (tests/support/rings.py), and the marker long. Each takes tests= for a part of it.
test: $(if $(tests),setup etcd,first) ## the first ring: values, simulator, contracts, in-process service, two minutes (tests="tests/core -k queue")
	$(pytest) -n $(workers) $(if $(tests),$(tests),-m "not (live or fleet or long or packages)" tests)

test-live: setup etcd docker systemd ## the second ring: real programs, started and killed, ten minutes
	$(pytest) -n $(workers) -m "live and not long" $(or $(tests),tests)

test-fleet: setup etcd docker ## the third ring: samples of kill matrix and soak, and the demo, ten minutes
	$(pytest) -n 0 -m "fleet and not long" $(or $(tests),tests --ignore=tests/partitions)

test-partitions: setup etcd docker ## one cell of the partitions for each thing and phase, minutes (a part: sample=1/5)
	$(pytest) -n 0 -m "fleet and not long" tests/partitions

test-long: setup etcd ## the long forms: seeded faults, long lives, schemathesis, fuzzing, grant races, ten minutes (a part: sample=1/4)
	$(pytest) -n $(workers) -m "long" $(or $(tests),tests)

test-pythons: etcd ## the first ring and the demo, on Debian's Python and on the newest other
	@set -e; pythons=$$(tools/pythons.sh); for each in $$pythons; do \
	  echo "test-pythons: $$each"; \
	  $(MAKE) --no-print-directory python=$$each test demo; \
	done

test-install: setup etcd ## build wheel and sdist, install each into an empty environment and run it there, minutes
	$(bin)/python -m pytest -m packages tests/packaging/test_install.py

test-packages: setup docker ## .deb on clean Debian 12 and 13 by the commands of install.md, lintian, rpmlint, the Ansible role, ten minutes
	$(bin)/python -m pytest -n 0 -m packages $(or $(tests),tests/packaging/test_deb.py tests/packaging/test_checked.py)

test-all: test test-live test-fleet test-partitions test-long test-pythons test-install test-packages ## every ring, an hour

check: lint verify test ## what must hold before a commit: lint, types, imports, generated files, the model, the first ring

partitions: setup etcd docker ## cut containers from one thing after the other in every substate, half an hour (a part: only="etcd")
	OUTRIDER_TEST_PARTITIONS=all $(bin)/python -m pytest tests/partitions $(if $(only),-k "$(only)")

verify: $(stamp) ## run the statechart exhaustively against the promises, ten minutes or more (a part: sample=1/2)
	$(bin)/outrider statechart verify $(if $(sample),--part $(sample))

verify-all: $(stamp) ## the same within larger bounds, an hour or more
	$(bin)/outrider statechart verify --bounds large

fuzz: setup etcd ## 10000 inputs for the Omaha endpoint, 100 requests per operation for the REST API, 15 minutes (inputs=50000)
	OUTRIDER_TEST_FUZZ=$(or $(inputs),10000) OUTRIDER_TEST_SCHEMATHESIS=$(or $(requests),100) \
	  $(bin)/python -m pytest -n $(workers) -rP tests/service/omaha/test_fuzz.py tests/service/api/test_schemathesis.py

chaos: setup etcd ## a sample of the kill matrix, two minutes (seconds=600 seed=7 secured=1)
	$(bin)/python -m tests.chaos --seconds $(or $(seconds),120) --seed $(or $(seed),1) $(if $(secured),--secured)

chaos-all: setup etcd ## the whole kill matrix, an hour or more; writes docs/develop/chaos.md
	$(bin)/python -m tests.chaos --all --seed $(or $(seed),1) --fixtures $(or $(fixtures),3)

live: setup etcd docker ## real machines in containers: the built packages, systemd, two balancers; quick scenarios, minutes (only="leader" times=3)
	$(bin)/python -m tests.scenarios --only "$(only)" --times $(or $(times),1)

live-all: setup etcd docker ## every scenario on real machines, half an hour; writes docs/develop/live.md (only="leader,cutoff" times=3)
	$(bin)/python -m tests.scenarios --all --write --only "$(only)" --times $(or $(times),1)

long: setup ## simulated fleets live through a thousand rollouts each with troubles at random, minutes (seed=0 fleets=10)
	$(bin)/python -m tests.sim.long_run --seed $(or $(seed),0) --fleets $(or $(fleets),10) --rollouts 1000

soak: setup etcd ## real rollouts under load with random faults, for ten minutes (minutes=10 seed=7 secured=1)
	$(bin)/python -m tests.soak --minutes $(or $(minutes),10) $(if $(seed),--seed $(seed)) $(if $(secured),--secured) --keep

lint: $(stamp) $(checkers) ## style, types, import layers, and that pictures and generated pages are not stale
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/python tools/diagrams.py --check
	$(bin)/python tools/settings_doc.py --check
	$(bin)/python tools/sentences.py

format: $(stamp) $(checkers) ## put the code into the project's form
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

diagrams: $(stamp) ## redraw the pictures and generated pages from statechart and settings
	$(bin)/python tools/diagrams.py
	$(bin)/python tools/settings_doc.py
	$(bin)/python tools/sentences.py --write

packages: $(stamp) ## .deb for Debian 12 and 13, .rpm for their Pythons, into build/packages, minutes; needs root (release=bookworm)
	$(bin)/python tools/packages.py $(release)

man: $(stamp) ## write the manual pages to build/man/man1
	$(bin)/outrider man --dir build/man/man1

bench: bench-etcd bench-omaha bench-service bench-grants bench-policy bench-sidekick ## run all benchmarks

bench-etcd: setup etcd ## measure the etcd seam: delivery, hand-off beside etcdctl lock
	$(bin)/python -m bench.etcd

bench-omaha: setup etcd ## measure the update service's check-ins: how many a second, and what a crowd is answered
	$(bin)/python -m bench.omaha

bench-service: setup etcd ## measure check-ins beside a bare ASGI server, two minutes (write=1: into docs/develop/performance.md)
	$(bin)/python -m bench.performance $(if $(write),--write)

bench-policy: $(stamp) ## measure outrider policy verify: a bad policy, the default, 300 instances in 5 racks
	$(bin)/python -m bench.policy

bench-grants: setup etcd ## measure grants beside a bare ASGI server: eight clients, 500 at once, bytes in etcd; half a minute
	$(bin)/python -m bench.grants

bench-page: setup etcd ## the page of 1,000 instances in Chromium: first paint, updates, memory; a quarter of an hour
	$(bin)/python -m bench.page

bench-sidekick: setup etcd ## measure sidekicks at rest: memory, threads, CPU, imports, machine step; five minutes (write=1: into the docs)
	$(bin)/python -m bench.sidekick $(if $(write),--write)

bench-compare: setup etcd ## measure this tree beside another commit (REF=main, parts=step,etcd,sidekick,twenty,service)
	$(bin)/python -m bench.compare $(or $(REF),main) $(if $(parts),--parts $(parts))

bench-preview: setup etcd ## what rollout preview foresees beside what fleets of 3 and 12 take, minutes
	$(bin)/python -m bench.preview

pin: ## write constraints.txt anew from pyproject.toml (newest versions: make pin upgrade=1)
	tools/pin.sh "$$(tools/setup.sh find)" $(if $(upgrade),--upgrade)

sbom: $(stamp) ## a CycloneDX bill of materials and a list of licences for each way to install, into build/sbom
	tools/supply.sh
	$(bin)/python tools/sbom.py build/sbom

audit: ## ask the vulnerability service of the package index about every pinned package (pip-audit; needs the network)
	@tools/supply.sh && python3 tools/audit.py

etcd: $(etcd) ## fetch the etcd that the tests kill and restart (into .cache)

$(etcd): tools/fetch_etcd.sh
	@tools/fetch_etcd.sh && touch $@

# without it the tests that need a systemd are skipped with their reason; with CI=true that is a failure
systemd: ## make the machine with systemd that tests run in a container (into .cache, once)
	@tools/systemd_image.sh || [ "$$CI" != true ]

# without Docker the tests that need it are skipped with their reason; with CI=true that is a failure
docker: ## start a Docker daemon when none answers and this machine lets us
	@tools/start_docker.sh || [ "$$CI" != true ]

clean: ## remove what the targets above made
	@tools/start_docker.sh --stop
	rm -rf .venv .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
