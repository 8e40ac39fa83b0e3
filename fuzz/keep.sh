#!/usr/bin/env bash
# Copies inputs from fuzz/found (written by fuzz/run.sh) to fuzz/corpus if they reach new code, shortest
# first: fuzz/keep.sh [most bytes of an input, default 256] [targets, default all]
set -euo pipefail
cd "$(dirname "$0")/.."

longest=${1:-256}
targets=${*:2}
[ -n "$targets" ] || targets="path glob invalidation ring settings request"
host=$(rustc +nightly -vV | sed -n 's/^host: //p')

for target in $targets; do
    short=$(mktemp -d)
    find "fuzz/found/$target" -type f -size "-${longest}c" -exec cp -t "$short" {} +
    "fuzz/target/$host/release/$target" -merge=1 "fuzz/corpus/$target" "$short" >"fuzz/found/$target.log" 2>&1
    rm -r "$short"
    echo "$target: $(find "fuzz/corpus/$target" -type f | wc -l) inputs"
done
