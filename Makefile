# One line each; every target makes the virtual environment it needs.  `make train ARGS="--preset three-layer"`
VENV   ?= .venv
PYTHON ?= python3
EXTRAS ?= test
ARGS   ?=
BIN    := $(VENV)/bin

.PHONY: train test check ladder mutate bench wheel clean

train: $(VENV)/.installed          ## train with the default preset
	$(BIN)/gpuconv train $(ARGS)

test: $(VENV)/.installed-$(EXTRAS) ## all tests
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-$(EXTRAS) ## what CI runs: style, types, tests, every benchmark once
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --durations=15
	$(BIN)/python -m pytest bench --benchmark-disable --quiet

ladder: $(VENV)/.installed-$(EXTRAS) ## the slow checks of kernels in the emulator
	$(BIN)/python -m pytest -m ladder $(ARGS)
	$(BIN)/python -m bench.mutate_kernels --sample 100

mutate: $(VENV)/.installed-$(EXTRAS) ## break kernels in every place that can be broken, and see it noticed: hours
	$(BIN)/python -m bench.mutate_kernels $(ARGS)

bench: $(VENV)/.installed-test,torch,bench ## compare speed with every peer that is installed
	$(BIN)/gpuconv bench $(ARGS)

wheel: $(VENV)/.installed-$(EXTRAS) ## source archive and wheel in dist/
	$(BIN)/python -m build

clean:                             ## remove what was built; runs/ and data stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "gpuconv needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@ $(VENV)/.installed
