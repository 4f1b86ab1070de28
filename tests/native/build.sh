#!/usr/bin/env bash
# Builds one of the programs with sanitizers: build.sh FILE fuzz|harness|threads [FLAG ...]. CC is the compiler.
set -euo pipefail
target=$(realpath -m "$1")
cd "$(dirname "$0")"
case $2 in
    fuzz) what=(fake.c harness.c -fsanitize=address,undefined,fuzzer) ;;
    harness) what=(fake.c harness.c main.c -fsanitize=address,undefined) ;;
    threads) what=(fake.c threads.c -fsanitize=thread) ;;
    *) exit 2 ;;
esac
"${CC:-cc}" -std=gnu11 -g -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all -pthread \
    -Wall -Wextra -Wpedantic -Wconversion "${@:3}" "${what[@]}" -o "$target"
