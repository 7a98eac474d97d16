# make demo, make test, make test-slow, make bench, make bench-gpu, make experiments: each sets up .venv first.
PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest-onnxruntime
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(shell find export -type f)

.PHONY: demo test test-slow lint bench bench-gpu experiments clean install

install: $(VENV)/.installed

$(VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# the oldest onnxruntime that the native library supports, apart because a Python environment holds only one
$(OLDEST)/.installed:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet onnxruntime==1.20.1 'numpy<2.5'
	touch $@

demo: install
	$(BIN)/hwfault demo --out demo

test: install $(OLDEST)/.installed
	HWFAULT_OLDEST_ONNXRUNTIME=$(abspath $(OLDEST))/bin/python $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m tests.benchmarks

# needs an NVIDIA GPU; results are kept under tests/benchmarks/results with its name
bench-gpu: install
	$(BIN)/python -m tests.benchmarks.gpu $(OPTIONS)

# docs/undervolting, docs/elements, docs/training and the counts of docs/exactness; the measured device needs HWFAULT_DATA
experiments: install
	$(BIN)/python -m tests.experiments.undervolting
	$(BIN)/python -m tests.experiments.elements
	$(BIN)/python -m tests.experiments.training
	$(BIN)/python -m tests.experiments.integer

clean:
	rm -rf $(VENV) $(OLDEST) demo build dist
