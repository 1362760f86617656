# Every command a contributor or a curious reader needs. `make` alone lists them.
#
# PYTHON      the interpreter that makes the virtual environment (3.11 or newer)
# TORCH_ARGS  further arguments for installing PyTorch, such as an --index-url that serves CPU-only wheels:
#             without it Linux gets the CUDA build, several GB
PYTHON ?= python3
TORCH_ARGS ?=

# ROOM, N, SEED, TESTS  of `make mutate`: where, how many, which, and what runs (tests/ROOM)
ROOM ?= analysis
N ?= 20
SEED ?= 0
TESTS ?=

BENCHMARKS ?= step trainer memory window generation out_of_the_box compiled neighbours

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_MARKERS := not slow and not slurm and not browser and not torture

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow torture fuzz mutate lint format docs-tables options bench docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@sed -n '/^# PYTHON/,/^PYTHON/{/^#/s/^# /  /p}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)  ## make .venv with the pinned versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH_ARGS) --constraint constraints.txt $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## train the smallest experiment, conf/base.yaml, on this machine
	$(BIN)/lightning-metatok fit --config conf/base.yaml

test: $(STAMP)  ## run the tests, two processes of one thread each
	$(BIN)/pytest -n 2 --dist worksteal -m '$(TEST_MARKERS)'

test-slow: $(STAMP)  ## run what `make test` leaves out because it takes long: whole runs, several processes
	$(BIN)/pytest -n 2 --dist worksteal -m 'slow and not slurm and not browser and not torture'

torture: $(STAMP)  ## kill runs 60 times and stop them 20 times: 4 minutes and more; torture/ keeps what is done
	LIGHTNING_METATOK_TORTURE=$(CURDIR)/torture $(BIN)/pytest tests/system -m torture -q -s

fuzz: $(STAMP)  ## look longer for input that breaks a reader: FUZZ_EXAMPLES of each kind
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-20000} $(BIN)/pytest -m fuzz --hypothesis-profile=fuzz --hypothesis-show-statistics

mutate: $(STAMP)  ## put N one-line faults into ROOM of the package, in a copy: which do its tests not see?
	@$(BIN)/python -c 'import cosmic_ray' 2>/dev/null || $(BIN)/pip install --quiet --constraint constraints.txt cosmic-ray
	$(BIN)/python -m tests.mutate $(ROOM) --n $(N) --seed $(SEED) --tests '$(TESTS)'

lint: $(STAMP)  ## check style, format, types, who imports whom, and generated tables
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/tables.py --check

format: $(STAMP)  ## rewrite the files as `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-tables: $(STAMP)  ## write the tables of README and docs from what classes and files say
	$(BIN)/python docs/tables.py

options: $(STAMP)  ## write tests/cli/option_surface.txt: all options of fit with their types and defaults
	$(BIN)/python -m tests.cli.option_surface

bench: $(STAMP)  ## measure speed and memory against other projects: half an hour; docs/performance.md shows it
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt litgpt
	for one in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$one || exit 1; done
	$(BIN)/python docs/tables.py

docs: $(STAMP)  ## build the documentation site, strictly: a link that leads nowhere is an error; site/index.html
	@$(BIN)/python -c 'import mkdocs, mkdocstrings' 2>/dev/null || \
		$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m docs.stage
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## remove the virtual environment and every tool's cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
