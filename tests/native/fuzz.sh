#!/usr/bin/env bash
# Fuzzes the extension's decoders, from the corpus that is kept:
#   fuzz.sh SECONDS [FOLDER]     libFuzzer where clang has it, which keeps what it finds new in FOLDER; else our own driver
#   fuzz.sh merge FOLDER         takes into the corpus what covers more than the corpus does
# What fails is left in the working directory.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
if CC=clang bash "$here/build.sh" "$folder/fuzz" fuzz 2>"$folder/log"; then
    if [ "$1" = merge ]; then
        "$folder/fuzz" -merge=1 -use_counters=0 "$here/corpus" "$2"
    else
        found=${2:-$folder/found}
        mkdir -p "$found"
        "$folder/fuzz" -max_total_time="$1" -max_len=65536 -timeout=20 -print_final_stats=1 "$found" "$here/corpus"
    fi
elif [ "$1" = merge ]; then
    cat "$folder/log" >&2
    exit 1
else
    echo "no clang with libFuzzer, so changes at random: $(tail -1 "$folder/log")"
    bash "$here/build.sh" "$folder/harness" harness
    "$folder/harness" mutate "$1" "$here"/corpus/*
fi
