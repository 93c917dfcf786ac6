# Everything a newcomer needs is Python 3.11 or later, make and a network: `make up`, `make test`.
# The exact packages stand in requirements.lock and requirements-dev.lock, with their hashes.

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
PYTHONS := $(PYTHON) python3.13 python3.12 python3.11 python3 python3.14

.PHONY: help up stop test check test-all bench lock migration clean

help: ## explain every target (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)/.runtime ## install what is needed and start Rowhouse with demo tenants
	@$(BIN)/rowhouse up $(ARGS)

stop: $(VENV)/.runtime ## stop Rowhouse and its database
	@$(BIN)/rowhouse stop

test: $(VENV)/.dev ## run all tests on the embedded PostgreSQL
	$(BIN)/pytest -n $(WORKERS) $(ARGS)

check: $(VENV)/.dev ## check format, lint, types, import rules and the tests that need no database (under 2 minutes)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/architecture
	$(BIN)/pytest tests --ignore=tests/architecture -m no_database || test $$? -eq 5

test-all: $(VENV)/.dev ## run all tests on the embedded PostgreSQL 18, then on an installed PostgreSQL 15
	ROWHOUSE_TEST_PG=18 $(BIN)/pytest -n $(WORKERS) $(ARGS)
	ROWHOUSE_TEST_PG=15 $(BIN)/pytest -n $(WORKERS) $(ARGS)

bench: $(VENV)/.runtime ## measure beside pgbench, an ORM and another CRM, about ten minutes: make bench ARGS="list growth"
	$(BIN)/python -m bench $(ARGS)

lock: $(VENV)/.python ## choose the newest allowed packages anew and write both lock files
	sh scripts/lock.sh $(BIN)/python

migration: $(VENV)/.dev ## write a migration from the changed models: make migration MESSAGE="add notes"
	$(BIN)/python scripts/revision.py "$(MESSAGE)"

clean: ## remove the environment and all caches; data in .rowhouse stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis dist build
	find src tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was made from, so an edited lock file or project file installs again.
$(VENV)/.runtime: requirements.lock pyproject.toml $(VENV)/.python
	@echo "Installing the packages of requirements.lock; the first time takes about a minute ..."
	@$(PIP) install --require-hashes -r requirements.lock || { $(EXPLAIN_INSTALL); }
	@$(PIP) install --no-deps --no-build-isolation -e . || { $(EXPLAIN_INSTALL); }
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml $(VENV)/.python
	@echo "Installing the packages of requirements-dev.lock; the first time takes about a minute ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock || { $(EXPLAIN_INSTALL); }
	@$(PIP) install --no-deps --no-build-isolation -e . || { $(EXPLAIN_INSTALL); }
	@touch $@ $(VENV)/.runtime

EXPLAIN_INSTALL = echo "make: the packages could not be installed; check the network and the message above, then retry" >&2; exit 1

# An environment holds absolute paths: a moved checkout or a removed Python needs a new one.
VENV_FITS := $(shell test "$$(cat $(VENV)/.python 2>/dev/null)" = "$(CURDIR)" && $(BIN)/python -c 1 2>/dev/null && echo yes)
ifneq ($(VENV_FITS),yes)
.PHONY: $(VENV)/.python
endif

# Debian's python3 comes without venv and ensurepip, so a Python counts only if it can make an environment.
$(VENV)/.python:
	@bare=; for python in $(PYTHONS); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || { bare="$$bare $$python"; continue; }; \
	  echo "Making $(VENV) with $$("$$python" --version) ..."; \
	  rm -rf $(VENV); "$$python" -m venv $(VENV) && echo "$(CURDIR)" > $@ && exit 0; \
	  echo "make: $$python could not make $(VENV); check the free disk space and the message above" >&2; exit 1; \
	done; \
	if [ -n "$$bare" ]; then \
	  echo "make: found$$bare without the venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; \
	else \
	  echo "make: Python 3.11 or later was not found; install it, or name it: make PYTHON=/path/to/python3" >&2; \
	fi; exit 1
