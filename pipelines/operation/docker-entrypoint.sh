#!/bin/sh
# The first start on an empty volume puts the project there; later starts find their data, cache and state again.
set -eu
source=${SMOOTHMIX_SOURCE:-/app/source}
volume=${SMOOTHMIX_VOLUME:-/work}
unfinished=$volume/.copy-unfinished
if [ ! -w "$volume" ]; then
    echo "error: user $(id -u) may not write to $volume: give the volume to that user (chown $(id -u) on the host)" >&2
    exit 1
fi
if [ ! -e "$volume/dvc.yaml" ] || [ -e "$unfinished" ]; then
    touch "$unfinished" # there until all is copied, so that a copy that was cut short is made again
    if ! cp -R "$source/." "$volume/"; then
        echo "error: the project could not be copied to $volume: make room there, then start again" >&2
        exit 1
    fi
    rm "$unfinished"
fi
commit() {
    git -c safe.directory='*' -C "$1" rev-parse --short --verify --quiet HEAD || echo unknown
}
if [ "$(commit "$source")" != "$(commit "$volume")" ]; then
    echo "note: the image holds commit $(commit "$source"), the volume $(commit "$volume"), which is what runs: for the image's, \`git pull $source HEAD\` in $volume" >&2
fi
exec "$@"
