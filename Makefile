# `make help` lists the targets; each one installs what it needs.
.DEFAULT_GOAL := help
.PHONY: help linux setup setup-sam setup-runtime setup-supply setup-browser setup-page setup-clients run test coverage check check-template check-types check-files build invoke deploy test-package test-engines test-engines-alone test-engines-integration test-sam-local test-browser test-clients page pictures terminal-picture bench bench-forecast bench-largest bench-ending bench-watchers faults fuzz histories interleavings load sbom audit mutation performance cost openapi lock format format-page clean
SHELL := /bin/sh

PYTHON3 ?= python3
PORT ?= 3000
# The architecture to build for.
ARCH ?= arm64
# The stack's other parameters, such as "RateLimit=20 MemorySize=2048". A value given here replaces this default.
PARAMETERS ?= DeploymentPreference=Canary10Percent5Minutes
BIN := .venv/bin
SAM := .venv-sam/bin/sam
SUPPLY := .venv-supply/bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make the environment: Python 3.13 and hash-locked packages
	@command -v $(PYTHON3) >/dev/null || { echo "setup: no $(PYTHON3) on the path; install Python 3.7 or newer" >&2; exit 1; }
	@$(PYTHON3) scripts/setup.py

setup-sam:
	@$(PYTHON3) scripts/setup.py sam

setup-runtime:
	@$(PYTHON3) scripts/setup.py runtime

setup-supply:
	@$(PYTHON3) scripts/setup.py supply layer

# The first prerequisite of a target that needs Linux: its binaries, its namespaces or Debian's packages.
linux:
	@test "$$(uname -s)" = Linux || { echo "$(MAKECMDGOALS): needs Linux; this is $$(uname -s)" >&2; exit 1; }

run: setup ## start the API on http://127.0.0.1:3000 (PORT=) over an embedded DynamoDB
	@exec $(BIN)/batch-progress serve --port $(PORT) $(if $(BRIDGE),--bridge $(BRIDGE))

# COVERAGE=1 runs the same tests and collects what `make coverage` reports.
test: setup ## run the unit and integration tests (COVERAGE=1 collects coverage)
	@$(if $(COVERAGE),$(BIN)/coverage erase)
	$(BIN)/$(if $(COVERAGE),coverage run -m )pytest tests/unit tests/integration

coverage: setup ## line and branch coverage of functions/ and layers/ by `make test COVERAGE=1`
	@ls .coverage.* >/dev/null 2>&1 || $(MAKE) --no-print-directory test COVERAGE=1
	@$(BIN)/coverage combine -q
	$(BIN)/coverage report

# Its parts can run at the same time: `make -j2 check`.
check: check-template check-types check-files ## format, lint, types, imports, template, OpenAPI document, page, bill of materials, licences

check-types: setup
	$(BIN)/mypy

check-files: setup setup-supply setup-page
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/batch-progress openapi --check docs/openapi.json
	$(BIOME) ci --error-on-warnings page biome.jsonc
	$(BIN)/python scripts/build_page.py --check
	@mkdir -p build
	$(BIN)/python scripts/terminal_picture.py build/watch-terminal.svg
	cmp build/watch-terminal.svg docs/watch-terminal.svg
	$(SUPPLY)/python scripts/sbom.py --check
	$(BIN)/python -m benchmarks.report --check
	$(BIN)/python -m benchmarks.cost_tables --check

# Checks the template as written and as SAM expands it: only the latter has stages, aliases and deployment groups. Runs offline.
TEMPLATE ?= template.yaml
EXPANDED := .aws-sam/expanded
check-template: setup setup-sam ## lint the template: cfn-lint, its serverless rules, checkov
	@$(PYTHON3) scripts/setup.py checkov
	$(BIN)/cfn-lint -a cfn_lint_serverless.rules -t $(TEMPLATE)
	SAM_CLI_TELEMETRY=0 $(SAM) validate --lint --region eu-central-1 --template $(TEMPLATE)
	@mkdir -p $(dir $(EXPANDED))
	@# SAM's expansion differs by this parameter alone; cfn-lint tries both ways of each condition.
	@for choice in AllAtOnce Canary10Percent5Minutes; do \
		$(dir $(SAM))python scripts/expand.py $(TEMPLATE) DeploymentPreference=$$choice >$(EXPANDED).$$choice.json 2>$(EXPANDED).log \
			|| { cat $(EXPANDED).log >&2; exit 1; }; \
	done
	@# W7001: SAM has resolved the only use of the mapping
	$(BIN)/cfn-lint -i W7001 -t $(EXPANDED).*.json
	CKV_SKIP_PACKAGE_UPDATE_CHECK=1 .venv-checkov/bin/checkov --framework cloudformation --skip-download --quiet --compact -f $(TEMPLATE) $(EXPANDED).*.json

format: setup ## format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	@$(MAKE) --no-print-directory format-page

# Biome formats and lints page/.
BIOME := .npm/biome/node_modules/.bin/biome
setup-page:
	@$(PYTHON3) scripts/setup.py biome

format-page: setup-page
	$(BIOME) check --write page biome.jsonc
	@$(MAKE) --no-print-directory page

# SAM uses the first Python 3.13 on the path; a version manager's shim may not work.
build: setup setup-sam ## build the functions and their layer for Lambda (ARCH=arm64, or x86_64)
	PATH="$(CURDIR)/$(BIN):$$PATH" ARCH=$(ARCH) SAM_CLI_TELEMETRY=0 $(SAM) build --parameter-overrides Arch=$(ARCH)

# Containers run on this machine's architecture.
MACHINE := $(subst aarch64,arm64,$(shell uname -m))
FUNCTION ?= ProgressFunction
EVENT ?= events/direct.json
invoke: ## run a function in a container (FUNCTION=, EVENT=events/key.json) on the tables of `make run`
	@$(MAKE) --no-print-directory build ARCH=$(MACHINE)
	SAM_CLI_TELEMETRY=0 $(SAM) local invoke $(FUNCTION) -e $(EVENT) --parameter-overrides Arch=$(MACHINE)

deploy: build ## deploy the stack in samconfig.toml (ARCH=, PARAMETERS="Name=value ...")
	SAM_CLI_TELEMETRY=0 $(SAM) deploy --parameter-overrides Arch=$(ARCH) $(PARAMETERS)

test-package: setup setup-sam ## build for both architectures and test the deployment package
	@$(PYTHON3) scripts/setup.py runtime oldest axios
	$(BIN)/pytest tests/package

# Both halves run, even if the first fails.
test-engines: linux setup setup-sam ## test on real engines, which it installs: DynamoDB Local, Lambda's runtime, an AWS emulator
	@$(PYTHON3) scripts/setup.py ministack runtime
	@$(MAKE) --no-print-directory -k test-engines-alone test-engines-integration

test-engines-alone:
	$(BIN)/python -m tests.engines.dynamodb_local $(BIN)/pytest -n 0 tests/engines

test-engines-integration:
	$(BIN)/python -m tests.engines.dynamodb_local $(BIN)/pytest tests/integration

test-sam-local: linux setup setup-runtime ## test the functions in containers with sam local: events, API, Lambda (as root)
	@$(MAKE) --no-print-directory build ARCH=$(MACHINE)
	$(BIN)/python -m tests.sam_local.docker $(BIN)/pytest -n 0 tests/sam_local

# Debian's Chromium, and axe-core for accessibility checks from npm; the locked environment has Python packages only.
setup-browser: linux
	@$(PYTHON3) scripts/setup.py axe-core
	@test -x /usr/bin/chromium || { test "$$(id -u)" = 0 && apt-get update -q && apt-get install -yq --no-install-recommends chromium fonts-dejavu-core; } \
		|| { echo "browser: no /usr/bin/chromium; install it (as root: apt-get install chromium)" >&2; exit 1; }

test-browser: linux setup setup-browser ## test the page in Chromium
	$(BIN)/pytest tests/browser

# The generators from the package index, TypeScript from npm, and this machine's JDK.
TSC := .npm/typescript/node_modules/.bin/tsc
setup-clients:
	@command -v javac >/dev/null || { echo "clients: no JDK on the path; install one (as root: apt-get install default-jdk-headless)" >&2; exit 1; }
	@$(PYTHON3) scripts/setup.py clients typescript

test-clients: setup setup-clients ## generate clients in four languages from the OpenAPI document and read every field with them
	TSC=$(TSC) $(BIN)/pytest tests/clients -n 0

pictures: linux setup setup-browser ## regenerate the README's pictures
	$(BIN)/python -m tests.browser.pictures
	@$(MAKE) --no-print-directory terminal-picture

bench: setup setup-sam setup-runtime ## benchmark this handler against a straightforward one and a lower bound (5 minutes)
	$(BIN)/python -m benchmarks.run
	@$(MAKE) --no-print-directory performance

bench-forecast: setup ## measure the forecast's error on synthetic batches (DURATIONS=file.jsonl: on your own)
	$(BIN)/python -m benchmarks.forecast $(if $(DURATIONS),--durations $(DURATIONS))

bench-largest: setup ## find the largest batch that is counted within the function's timeout
	$(BIN)/python -m benchmarks.largest

bench-ending: setup ## simulate when clients that obey Retry-After see the end of a large batch (2 minutes)
	$(BIN)/python -m benchmarks.ending

bench-watchers: setup ## measure what 1 to 100 watchers of a batch under work cost (WATCHERS="1 20 100", JOBS=50000, half an hour)
	$(BIN)/python -m tests.engines.dynamodb_local $(BIN)/python -m benchmarks.watchers $(if $(WATCHERS),--watchers $(WATCHERS)) $(if $(JOBS),--jobs $(JOBS))

faults: setup ## inject faults between function and DynamoDB and check every answer (4 minutes)
	$(BIN)/python -m tests.engines.dynamodb_local $(BIN)/python -m tests.hostile.faults

CASES ?= 20000
fuzz: setup ## fuzz the function with hostile requests and search all output for tokens (CASES=20000, 7 minutes)
	CASES=$(CASES) $(BIN)/python -m tests.engines.dynamodb_local $(BIN)/python -m tests.hostile.fuzz

HISTORIES ?= 10000
interleavings: setup ## interleave workers at one job at random, and compare with a model (HISTORIES=10000, half a minute)
	HISTORIES=$(HISTORIES) $(BIN)/pytest -n 0 tests/integration/test_interleavings.py

BATCHES ?= 4000
histories: setup ## play randomized histories of pollers and of the supervisor, then hunt mutants (BATCHES=4000, 30 minutes; SEED= repeats one)
	BATCHES=$(BATCHES) $(BIN)/python -m tests.hostile.histories $(if $(SEED),"$(SEED)")

CLIENTS ?= 200
DURATION ?= 300
load: setup ## poll 1,000 batches while workers write, and check every answer (CLIENTS=200, DURATION=300)
	CLIENTS=$(CLIENTS) DURATION=$(DURATION) $(BIN)/python -m tests.engines.dynamodb_local $(BIN)/python -m tests.hostile.load

performance: setup ## write the measured figures into README.md, docs/security.md and docs/operations.md
	@$(BIN)/python -m benchmarks.report
	@$(BIN)/python -m tests.hostile.figures
	@$(BIN)/python -m benchmarks.cost_tables

cost: setup ## print what the stack costs, with the arithmetic of each bill
	@$(BIN)/python -m benchmarks.cost_tables --print

openapi: setup ## write docs/openapi.json from the code
	$(BIN)/batch-progress openapi --write docs/openapi.json

page: setup ## build the page of a batch from page/ into the function
	$(BIN)/python scripts/build_page.py --write

terminal-picture: setup ## draw docs/watch-terminal.svg, the output of `watch`
	$(BIN)/python scripts/terminal_picture.py docs/watch-terminal.svg

sbom: setup-supply ## write the layer's bill of materials, build/sbom.json, and docs/licences.md
	$(SUPPLY)/python scripts/sbom.py --write

audit: setup-supply ## look up known vulnerabilities of the layer's packages
	@$(SUPPLY)/python scripts/audit.py

mutation: setup ## mutation-test the tests (MODULE=forecast; AGAIN=1 for survivors only; well over an hour for all)
	@nice -n 15 $(BIN)/python scripts/mutation.py $(if $(AGAIN),--again) $(MODULE)

lock: setup ## update all dependencies in the hash-pinned lock files
	@UV=$$(command -v uv || echo .venv-uv/bin/uv); \
	compile="$$UV pip compile -q --upgrade --universal --python-version 3.13 --generate-hashes --no-header"; \
	$$compile pyproject.toml --extra functions --excludes layers/batch_progress/runtime_provides.txt -o layers/batch_progress/requirements.txt && \
	$$compile pyproject.toml --extra functions --group dev -o requirements/dev.txt && \
	$$compile pyproject.toml --extra functions --resolution lowest-direct -o requirements/oldest.txt && \
	for name in sam ministack runtime checkov clients supply uv; do \
		$$compile requirements/$$name.in -o requirements/$$name.txt || exit 1; \
	done

clean: ## remove everything that the other targets made
	rm -rf .venv .venv-* mutants build .engines .npm .aws-sam .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .schemathesis .import_linter_cache htmlcov
