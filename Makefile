# `make run` serves, `make test` tests, `make lint` checks; the first one asked for makes .venv.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
LAUNCHER := $(PY) -m parentalcontrols.launcher
PACKAGES := parentalcontrols viewingtime pins adminmetrics benchmarks tests

# Checks that load the settings; some migrations can only be read where those before them ran.
define ON_SERVERS
$(PY) -m mypy $(PACKAGES)
$(PY) manage.py makemigrations --check --dry-run
$(PY) manage.py migrate --noinput --verbosity 0
LOG_LEVEL=WARNING $(PY) manage.py lintmigrations --quiet ok
endef
export ON_SERVERS

# Given on the command line or by the environment, these reach the launcher.
export PORT DATA_DIR WORKERS BIND_HOST
# The tests start hundreds of processes, and each would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE

# An environment whose Python has gone (an upgrade, a move) is made anew.
$(shell test -x $(PY) || rm -f $(STAMP))

.PHONY: help run test test-faults test-matrix test-image lint audit bench format screenshots clean
.DEFAULT_GOAL := help

help:
	@echo "make run      serve on PORT (8000) with data in DATA_DIR (.data) and WORKERS (2)"
	@echo "make test     run the tests on throw-away servers; ARGS are pytest's"
	@echo "make test-faults   kill, hang, slow and fill everything under load; prints a table"
	@echo "make test-matrix   the tests on PostgreSQL 15 and 18, Redis 7 and Valkey 9, behind PgBouncer, on"
	@echo "              Django 5.2 and 6, in three rows; ROWS and ARGS choose, QUICK=1 takes a part of each"
	@echo "make test-image    carry out the Dockerfile in a clean root and try the image (root, Debian)"
	@echo "make lint     style, types, imports, migrations, security"
	@echo "make audit    known weaknesses of the dependencies, where the service for that is in reach"
	@echo "make bench    measure everything; ARGS are names; bench-NAME runs one with its ARGS"
	@echo "make format   let ruff format the code"
	@echo "make screenshots   take the pictures of docs/images anew, with Debian's Chromium"
	@echo "make clean    remove .venv and caches; the data in DATA_DIR stays"

run: $(STAMP)
	@exec $(LAUNCHER) run

test: $(STAMP)
	@exec $(LAUNCHER) test $(ARGS)

# Each fault for longer than in `make test`; FAULT_RESULTS keeps the figures of a run.
test-faults: export FAULT_SECONDS ?= 10
test-faults: export FAULT_RESULTS ?= .faults
test-faults: $(STAMP)
	@status=0; $(LAUNCHER) test tests/faults -q $(ARGS) || status=$$?; \
		$(PY) -m tests.faults.table "$$FAULT_RESULTS"; exit $$status

# ROWS="pooled redis-7"; ARGS are pytest's, in the place of the whole suite.
test-matrix: $(STAMP)
	@ARGS="$(ARGS)" $(PY) -m tests.matrix $(if $(QUICK),--quick) $(ROWS)

test-image:
	@$(PYTHON) -m tests.replay

lint: $(STAMP)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/lint-imports
	@$(PY) -m bandit -q -l -c pyproject.toml -r $(PACKAGES)
	@$(LAUNCHER) with sh -ec "$$ON_SERVERS"
	@if command -v promtool >/dev/null; then deploy/check; fi

audit: $(STAMP)
	@.ci/audit

bench: $(STAMP)
	@$(PY) -m benchmarks $(ARGS)

# One of them with its own options: make bench-reads ARGS="--rounds 2".
bench-%: $(STAMP)
	@$(PY) -m benchmarks.$* $(ARGS)

screenshots: $(STAMP)
	@$(LAUNCHER) test adminmetrics/tests/screenshots.py -q

format: $(STAMP)
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

clean:
	@rm -rf $(VENV) .matrix .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache staticfiles
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.txt requirements-dev.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON): install Python 3.11 or newer, or name one by PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: install a newer one, or name it by PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3-venv)."; exit 1; }
	@test -x $(PY) || { echo "Making $(VENV)"; rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "Installing the requirements"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@touch $@
