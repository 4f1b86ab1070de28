#!/usr/bin/env bash
# Builds the native engine with the driver of its tests: build.sh FILE address|thread|none [FLAG ...]. CC is the compiler;
# `address` also finds undefined behaviour. ENGINE is the folder of the engine, if it is not that of this checkout.
set -euo pipefail
target=$(realpath -m "$1")
cd "$(dirname "$0")"
engine=${ENGINE:-../../jammi_duck/encoder/native}
case $2 in
    address) checks=(-O1 -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all) ;;
    thread) checks=(-O1 -fsanitize=thread) ;;
    none) checks=(-O2) ;;
    *) exit 2 ;;
esac
compile=("${CC:-cc}" -std=gnu11 -g -fno-omit-frame-pointer -fno-math-errno -fno-trapping-math -pthread -Wall -Wextra
    "${checks[@]}" "${@:3}")
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
printf '%s\0' *.c "$engine"/*.c "$engine"/kernels/*.c |
    xargs -0 -P "$(nproc)" -I{} sh -c 'to=$1/$(basename "$2").o from=$2; shift 2; "$@" -c "$from" -o "$to"' \
        sh "$objects" {} "${compile[@]}"
"${compile[@]}" -Wl,--wrap=aligned_alloc,--wrap=calloc,--wrap=malloc,--wrap=free -o "$target" "$objects"/*.o -lm
