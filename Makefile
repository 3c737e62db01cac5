# Two commands on a fresh machine with Python 3.11 or newer:
#   make demo    the main job, from drawing people to a search that works
#   make test    the linters and all tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Progress bars of a log file: a line every few seconds, not ten a second.
export TQDM_MININTERVAL ?= $(shell [ -t 2 ] && echo 0.1 || echo 10)

.PHONY: demo test test-large test-torture test-avx2 lint bench bench-short readme docs clean

demo: $(VENV)/installed
	$(BIN)/finegrain demo

# All tests of a file run in one process: they share fixtures that take seconds to make, such as
# trained models. (The groups of pytest-xdist 3.8 have no effect with pytest 9.2.)
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

# Tests that take long, such as further exports of each published layout, a Milvus server, a Ray
# cluster of two nodes, TensorRT-RTX engines of ViT-B/16, and the wheel in a new environment.
test-large: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m slow

# A gallery under hundreds of kills and damages.
test-torture: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m torture

# Tests that depend on the processor, on one that has AVX2 and nothing newer.
test-avx2: $(VENV)/installed
	.ci/test-avx2 $(BIN)/python

build/older_processor.so: .ci/older_processor.c
	mkdir -p build
	$(CC) -O2 -shared -fPIC -o $@ $< -ldl

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed
	$(BIN)/python -m pytest -q benchmarks

# Runs every benchmark at a small size, and fails if finegrain is slower than the baseline.
bench-short: $(VENV)/installed
	FINEGRAIN_FAST=1 $(BIN)/python -m pytest -q benchmarks

readme: $(VENV)/installed
	$(BIN)/python benchmarks/tables.py

# Everything is in setup.cfg; the stamp is older than it only when it changed.
$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	# Only Triton's binary is wanted, for a test; its Python side pins numpy below 2.
	$(BIN)/python -m pip install --quiet --no-deps \
		"nvidia-pytriton>=0.7; sys_platform == 'linux' and platform_machine == 'x86_64'"
	touch $@

# The site, into site/. Broken links and anchors are errors.
docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(VENV)/docs-installed: setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build runs data .pytest_cache .mypy_cache .ruff_cache .hypothesis
