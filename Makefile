# Everything a checkout installs goes to .venv/ and build/.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 300
export CMAKE_BUILD_PARALLEL_LEVEL = $(JOBS)

.DEFAULT_GOAL := help
.PHONY: help deps build demo test test-cpp test-asan test-tsan test-gpu test-python lint fmt bench fuzz fuzz-short wheel clean

help:  ## show this text
	@echo "Octavo $$(cat VERSION): make TARGET"
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14 | sed 's/^/  /'

deps:  ## install system packages (as root) and .venv
	@PYTHON=$(PYTHON) scripts/deps.sh

build: deps  ## build the program, the library and the Python package into .venv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --reinstall-package octavo --no-cache .

demo: build  ## quantize a real model and show size, perplexity, speed and text beside FP16
	@$(BIN)/python examples/demo.py

test: build test-cpp test-asan test-tsan fuzz-short test-python  ## run every test

test-cpp: deps
	@cmake --preset dev >/dev/null
	@cmake --build --preset dev
	@ctest --preset dev

test-asan: deps  # the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@cmake --preset asan >/dev/null
	@cmake --build --preset asan
	@ctest --preset asan

test-tsan: deps  # the thread pool under ThreadSanitizer
	@cmake --preset tsan >/dev/null
	@cmake --build --preset tsan
	@build/tsan/tests/core/thread_pool_test --gtest_brief=1

test-gpu: build  ## run the tests that need a GPU, with nvcc; they skip themselves, and say why, where there is no GPU
	@cmake --preset dev >/dev/null
	@cmake --build --preset dev --target cuda_test cli_test
	@build/dev/tests/gemm/cuda_test
	@build/dev/tests/cli/cli_test --gtest_filter='*Gpu*'
	@$(BIN)/python -m pytest tests/python -k cuda -rs

test-python: build
	@$(BIN)/python -m pytest

lint: deps  ## check formatting and run clang-tidy and ruff
	@scripts/lint.sh

fmt: deps  ## format C++ and Python
	@git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format -i
	@$(BIN)/ruff format -q .
	@$(BIN)/ruff check -q --fix .

bench: deps  ## measure the quantizer against a plain read loop; MACHINE=name records it
	@cmake --preset dev >/dev/null
	@cmake --build --preset dev --target quantize_bench
	@$(BIN)/python bench/quantize.py $(if $(MACHINE),--machine $(MACHINE))

fuzz-short: deps
	@scripts/fuzz.sh 10

fuzz: deps  ## fuzz the parsers for FUZZ_SECONDS each (300)
	@scripts/fuzz.sh $(FUZZ_SECONDS)

wheel: deps  ## build an audited wheel in dist/ and try it in a clean environment
	@scripts/wheel.sh

clean:  ## remove build/ and dist/
	rm -rf build dist
