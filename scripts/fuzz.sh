#!/usr/bin/env bash
# Runs every fuzzer for the given number of seconds, starting from the kept corpus; new finds go to build/fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?seconds}

cmake --preset fuzz >/dev/null
cmake --build --preset fuzz
for target in build/fuzz/tests/fuzz/fuzz_*; do
  [ -x "$target" ] && [ -f "$target" ] || continue
  name=${target##*/fuzz_}
  mkdir -p "build/fuzz/corpus/$name"
  if ! "$target" -max_total_time="$seconds" -max_len=65536 -print_final_stats=1 -artifact_prefix="build/fuzz/" \
      "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" >"build/fuzz/$name.log" 2>&1; then
    tail -50 "build/fuzz/$name.log"
    exit 1
  fi
  echo "fuzz $name: $(sed -n 's/stat::number_of_executed_units: *//p' "build/fuzz/$name.log") runs, no finding"
done
