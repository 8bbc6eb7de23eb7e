#!/bin/sh
# The first start on an empty volume puts the project there; later starts find their data, cache and state again.
set -eu
if [ ! -e /work/dvc.yaml ]; then
    cp -R /app/source/. /work/
fi
exec "$@"
