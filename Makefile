# Every target makes the virtual environment it needs.  `make` alone lists them, from the comments behind ##.
VENV   ?= .venv
PYTHON ?= python3
EXTRAS ?= test
ARGS   ?=
BIN    := $(VENV)/bin
# Processes that tests run in.  Those start many others, which would each compile the package anew without this.
PROCESSES ?= auto
unexport PYTHONDONTWRITEBYTECODE

# Real CuPy where there is no GPU: the wheel that runs all of a GPU's cases, and those that run CI's share of them.
CUPY        ?= 14.2.0
CUPY_WHEELS ?= cuda13x-14.0.1 cuda12x-14.2.0 cuda12x-14.0.1
WITH_CUPY   := test,torch,emulated13x
WITH_TORCH  := test,torch

# What CI installs: exact versions with their hashes (`make lock` writes the file), as EXTRAS=locked WITH_CUPY=locked.
LOCK     := .ci/requirements.txt
MACHINE   = $(BIN)/python -c 'import platform, sys; \
  print("\# for", platform.python_implementation(), "%d.%d" % sys.version_info[:2], platform.system(), platform.machine())'

# Tests of what the CPU backend has as compiled loops, too: `make test` runs them on loops.
ON_ARRAYS := $(wildcard $(patsubst gpuconv/ops/%,tests/test_%,$(wildcard gpuconv/ops/[a-z]*.py))) \
  $(foreach name,winograd elementwise max_pool_ties between_operators optim long_sums compiled,tests/test_$(name).py)

.DEFAULT_GOAL := help
.PHONY: help train test test-arrays test-long test-processes test-compiling check notebooks style cupy cupy-core cupy-wheels ladder conformance torture mutate mutate-python bench docs wheel lock clean

help:                              ## what there is to make
	@awk -F ' *## ' '/^[a-z][a-z%-]*:.* ## / { split($$1, name, ":"); printf "make %-15s %s\n", name[1], $$2 }' $(MAKEFILE_LIST)
	@echo 'With flags of the command: make train ARGS="--preset three-layer"'

train: $(VENV)/.installed          ## train with the default preset
	$(BIN)/gpuconv train $(ARGS)

test: $(VENV)/.installed-$(EXTRAS) ## all quick tests
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal $(ARGS)

test-arrays: $(VENV)/.installed-$(EXTRAS) ## tests of operators on NumPy alone, without compiled loops
	GPUCONV_COMPILED=0 $(BIN)/python -m pytest -n $(PROCESSES) -m "not emulated and not gpu and not ladder and not compiling" $(ON_ARRAYS)

test-long: $(VENV)/.installed-$(EXTRAS) ## those that take seconds: processes that are killed, every wrong value of every file
	$(BIN)/python -m pytest -m long -n $(PROCESSES) --dist worksteal

test-processes: $(VENV)/.installed-$(EXTRAS) ## training in several processes: numbers of one process, the same bits twice, every way to fail
	$(BIN)/python -m pytest -m "processes and not cupy"

test-compiling: $(VENV)/.installed-$(EXTRAS) ## loops compiled anew: machine code for other processors, narrower vectors, caches that fail
	$(BIN)/python -m pytest -m compiling -n $(PROCESSES)

check: test test-arrays test-long test-processes test-compiling style notebooks docs ## what CI runs: tests on both CPU ways, long ones, many processes, other processors, style, types, notebooks, the site, benchmarks once, cases of ONNX and PyTorch, real CuPy
	$(BIN)/python -m pytest bench --benchmark-disable --quiet
	$(MAKE) conformance
	$(MAKE) cupy-core

notebooks: $(VENV)/.installed-$(EXTRAS) ## run them from top to bottom
	$(BIN)/python -m pytest -m notebook -n $(PROCESSES)

style: $(VENV)/.installed-$(EXTRAS) ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

cupy-core: $(VENV)/.installed-$(WITH_CUPY) ## CI's share of a GPU's cases, by real CuPy, without a GPU
	$(BIN)/python -m tests.ladder.cupy_run --core
	$(BIN)/python -m pytest -m "processes and cupy"

cupy: $(VENV)/.installed-$(WITH_CUPY) ## all of a GPU's cases by real CuPy, dry runs of the GPU run, other wheels of CuPy
	$(BIN)/python -m pytest -m cupy
	$(BIN)/python -m tests.ladder.cupy_run
	$(BIN)/python -m tests.cupy_emulated -m tests.ladder.gpu_run A --dry-run
	$(BIN)/python -m tests.cupy_emulated -m tests.ladder.gpu_run B --dry-run
	$(MAKE) cupy-wheels

cupy-wheels: $(addprefix cupy-,$(CUPY_WHEELS))

cupy-cuda%:                        ## CI's share by another wheel of CuPy, in an environment of its own: cupy-cuda12x-14.0.1
	test -x .venv-cupy-cuda$*/bin/python || $(PYTHON) -m venv .venv-cupy-cuda$*
	.venv-cupy-cuda$*/bin/python -m pip install --quiet --disable-pip-version-check --editable \
	  '.[test,emulated$(firstword $(subst -, ,$*))]' cupy-cuda$(subst -,==,$*)
	.venv-cupy-cuda$*/bin/python -m tests.ladder.cupy_run --core

ladder: $(VENV)/.installed-$(EXTRAS) ## the slow checks of kernels in the emulator
	$(BIN)/python -m pytest -m ladder $(ARGS)
	$(BIN)/python -m tests.ladder.mutate_kernels --sample 100

conformance: $(VENV)/.installed-$(if $(filter locked,$(EXTRAS)),locked,$(WITH_TORCH)) ## what ONNX and PyTorch test these operators with: right, refused by name, wrong
	$(BIN)/python -m tests.ladder.onnx_cases
	$(BIN)/python -m tests.ladder.torch_samples

torture: $(VENV)/.installed-$(EXTRAS) ## kills, damage, full disks, signals, interrupts, hostile files, random calls: some twenty minutes
	$(BIN)/python -m tests.ladder.torture $(ARGS)

mutate: $(VENV)/.installed-$(EXTRAS) ## break kernels in every place that can be broken, and see it noticed: hours
	$(BIN)/python -m tests.ladder.mutate_kernels $(ARGS)

mutate-python: $(VENV)/.installed-$(EXTRAS) ## break the Python code in 200 places, and see it noticed: hours
	$(BIN)/python -m tests.ladder.mutate_python --sample 200 $(ARGS)

bench: $(VENV)/.installed-test,torch,bench ## compare speed with every peer that is installed
	$(BIN)/gpuconv bench $(ARGS)

docs: $(VENV)/.installed-$(if $(filter locked,$(EXTRAS)),locked,docs) ## the documentation as a site: open docs/_build/index.html
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build

wheel: $(VENV)/.installed-$(EXTRAS) ## source archive and wheel in dist/
	$(BIN)/python -m build

lock: | $(BIN)/python              ## versions and hashes for CI: what pyproject.toml asks for anew; all with ARGS=--upgrade
	test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet uv; }
	echo "cupy-cuda13x==$(CUPY)" | UV_FIND_LINKS="$(PIP_FIND_LINKS)" .venv-lock/bin/uv pip compile pyproject.toml \
	  --python $(BIN)/python --extra test --extra torch --extra emulated13x --constraints - \
	  --generate-hashes --only-binary :all: --emit-build-options --annotation-style line --no-header --quiet --output-file $(LOCK) $(ARGS)
	{ echo "# Exact versions of what CI installs, and the hashes of their files.  Written by: make lock"; \
	  $(MACHINE); cat $(LOCK); } > $(LOCK).new && mv $(LOCK).new $(LOCK)

clean:                             ## remove what was built; runs/ and data stay
	rm -rf $(VENV) .venv-cupy-* .venv-lock build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "gpuconv needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fast]' || { \
	  echo "compiled loops cannot be installed here (numba has no wheel for this Python?): NumPy alone then"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .; }
	touch $@

$(VENV)/.installed-locked: pyproject.toml $(LOCK) | $(BIN)/python
	@$(MACHINE) | grep -qxFf - $(LOCK) || { \
	  echo "$(LOCK) is$$(sed -n '2s/^#//p' $(LOCK)), and this is$$($(MACHINE) | sed 's/^# for//'):" \
	    "write it for this one (make lock), or leave out EXTRAS=locked"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(LOCK) || { \
	  echo "not all that $(LOCK) names could be installed.  Where it is torch: its builds for the CPU alone are not in every" \
	    "index; tell pip of one that has them, or leave out EXTRAS=locked"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/.installed

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]' \
	  $(if $(findstring emulated,$*),cupy-cuda13x==$(CUPY))
	touch $@ $(VENV)/.installed
