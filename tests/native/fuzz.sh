#!/usr/bin/env bash
# Fuzzes the extension's decoders from the corpus that is kept: fuzz.sh SECONDS. libFuzzer where clang has it, else our own
# driver. What fails is left in the working directory; FOUND=FOLDER keeps what libFuzzer finds new.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# A frame may say that it has 8 GiB, of which nothing comes: the extension asks for that memory, and touches none of it.
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1} UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
if CC=clang bash "$here/build.sh" "$folder/fuzz" -fsanitize=fuzzer 2>"$folder/log"; then
    mkdir -p "${FOUND:=$folder/found}"
    "$folder/fuzz" -max_total_time="$1" -max_len=65536 -timeout=20 -rss_limit_mb=4096 -malloc_limit_mb=16384 \
        -print_final_stats=1 "$FOUND" "$here/corpus"
else
    echo "no clang with libFuzzer, so changes at random: $(tail -1 "$folder/log")"
    bash "$here/build.sh" "$folder/harness"
    "$folder/harness" mutate "$1" "$here"/corpus/*
fi
