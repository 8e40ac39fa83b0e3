#!/usr/bin/env bash
# Runs fuzz targets, one after another: fuzz/run.sh [seconds each, 600] [targets, all]
#
# Needs rustup's nightly compiler, as libFuzzer's instrumentation is not in the stable one, a C++
# compiler, and cargo-fuzz, which it installs from the registry where it is absent. What is found goes
# to fuzz/found, what breaks a property to fuzz/artifacts. fuzz/keep.sh takes what is worth keeping
# over into fuzz/corpus, which `cargo test` replays.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
targets=${*:2}
[ -n "$targets" ] || targets="path glob invalidation ring settings request"

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzzing needs a nightly compiler: rustup toolchain install nightly --profile minimal" >&2
    exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "installing cargo-fuzz"
    cargo +nightly install --locked cargo-fuzz
fi

# What these inputs lead to has no unsafe code of ours, so no sanitizer: twice the speed. Overflows
# and debug assertions are checked.
cargo +nightly fuzz build --sanitizer none
host=$(rustc +nightly -vV | sed -n 's/^host: //p')

for target in $targets; do
    mkdir -p "fuzz/found/$target" fuzz/artifacts
    echo "== $target: $seconds s"
    if ! "fuzz/target/$host/release/$target" "fuzz/found/$target" "fuzz/corpus/$target" \
        -max_total_time="$seconds" -timeout=10 -max_len=4096 -dict="fuzz/dictionaries/$target.txt" \
        -artifact_prefix="fuzz/artifacts/$target-" -print_final_stats=1 >"fuzz/found/$target.log" 2>&1; then
        tail -60 "fuzz/found/$target.log" >&2
        echo "$target: a property does not hold; the input is in fuzz/artifacts" >&2
        exit 1
    fi
    grep -E '^(Done|stat::(average_exec|new_units|slowest|peak))' "fuzz/found/$target.log"
done
echo "no findings"
