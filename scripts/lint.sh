#!/usr/bin/env bash
# Formatting and static checks. clang-tidy reads the compile commands of the preset `dev`.
set -euo pipefail
cd "$(dirname "$0")/.."

git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format --dry-run --Werror
.venv/bin/ruff format --check --quiet .
.venv/bin/ruff check --quiet .
cmake --preset dev >/dev/null
sources=$(git ls-files 'src/*.cpp' ':!src/torch')
echo "$sources" | xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p build/dev 2> >(grep -vE 'warnings? generated|^$' >&2)
echo "lint: clean"
