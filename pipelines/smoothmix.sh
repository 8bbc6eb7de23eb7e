#!/bin/sh
# The commands of the project in whose folder this is called, by the environment in whose bin/ this is linked.
if [ ! -f pipelines/__main__.py ]; then
    echo "error: $PWD is no project's folder: cd to the one that has pipelines/ and params.yaml" >&2
    exit 2
fi
exec "$(dirname "$0")/python" -m pipelines "$@"
