#!/usr/bin/env bash
# Builds the harness with AddressSanitizer and UndefinedBehaviorSanitizer: build.sh FILE [FLAG ...]. CC is the compiler.
set -euo pipefail
target=$(realpath -m "$1")
cd "$(dirname "$0")"
sources=(fake.c harness.c)
case " $* " in *-fsanitize=fuzzer*) ;; *) sources+=(main.c) ;; esac
"${CC:-cc}" -std=gnu11 -g -O1 -fno-omit-frame-pointer -Wall -Wextra -Wpedantic -Wconversion \
    -fsanitize=address,undefined -fno-sanitize-recover=all -pthread "${@:2}" "${sources[@]}" -o "$target"
