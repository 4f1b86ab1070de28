#!/usr/bin/env bash
# Random models, hostile input and failing allocations for so many seconds, under sanitizers: fuzz.sh SECONDS. What
# fails tells its seed, from which `driver models|hostile|allocations SEED SEED+1` fails again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
bash "$(dirname "$0")/build.sh" "$folder/driver" address
"$folder/driver" fuzz "$1"
