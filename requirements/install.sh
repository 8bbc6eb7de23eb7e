#!/bin/sh
# Install a lock into the environment of an image, each package checked by its hash. Where TORCH_INDEX names a package
# index, torch and torchvision come from there, in the lock's versions but unchecked, with the CUDA libraries that they ask
# for there (none, for a CPU build) instead of the lock's.
set -eu
lock=$1
install="python -m pip install --no-cache-dir --disable-pip-version-check --quiet"
if [ -z "${TORCH_INDEX:-}" ]; then
    exec $install --no-deps --require-hashes -r "$lock"
fi
rest=$(mktemp)
awk '/^[^ ]/ { skip = /^(torch|torchvision|triton|cuda-|nvidia-)/ } !skip' "$lock" > "$rest"
$install --no-deps --require-hashes -r "$rest"
rm "$rest"
# shellcheck disable=SC2046
$install --index-url "$TORCH_INDEX" $(grep -oE '^torch(vision)?==[^ ;]+' "$lock")
