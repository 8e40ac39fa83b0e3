#!/usr/bin/env bash
# Runs fuzz targets, one after another: fuzz/run.sh [seconds for each, default 600] [targets, default all]
#
# Needs rustup's nightly compiler (the stable one has no instrumentation for libFuzzer), a C++ compiler,
# and cargo-fuzz, which is installed from the registry if it is missing. New inputs are stored in
# fuzz/found, and inputs that violate a property in fuzz/artifacts. fuzz/keep.sh copies useful inputs
# to fuzz/corpus, which `cargo test` replays.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
targets=${*:2}
[ -n "$targets" ] || targets="path glob invalidation ring settings request resp"

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzzing needs a nightly compiler: rustup toolchain install nightly --profile minimal" >&2
    exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "installing cargo-fuzz"
    cargo +nightly install --locked cargo-fuzz
fi

# This project has no unsafe code, so no sanitizer is used, which doubles the speed. Overflows and debug
# assertions are checked.
cargo +nightly fuzz build --sanitizer none
host=$(rustc +nightly -vV | sed -n 's/^host: //p')

for target in $targets; do
    mkdir -p "fuzz/found/$target" fuzz/artifacts
    echo "== $target: $seconds s"
    if ! "fuzz/target/$host/release/$target" "fuzz/found/$target" "fuzz/corpus/$target" \
        -max_total_time="$seconds" -timeout=10 -max_len=4096 -dict="fuzz/dictionaries/$target.txt" \
        -artifact_prefix="fuzz/artifacts/$target-" -print_final_stats=1 >"fuzz/found/$target.log" 2>&1; then
        tail -60 "fuzz/found/$target.log" >&2
        echo "$target: an input violates a property; it is in fuzz/artifacts" >&2
        exit 1
    fi
    grep -E '^(Done|stat::(average_exec|new_units|slowest|peak))' "fuzz/found/$target.log"
done
echo "no findings"
