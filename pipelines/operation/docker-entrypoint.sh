#!/bin/sh
# The first start on an empty volume puts the project there; later starts find their data, cache and state again. The code
# that runs is the volume's: one that lacks the image's commit is refused until the command `update` has merged it.
set -eu
source=${SMOOTHMIX_SOURCE:-/app/source}
volume=${SMOOTHMIX_VOLUME:-/work}
unfinished=$volume/.copy-unfinished
[ -w "${HOME:-/}" ] || export HOME=/tmp # a user whom the image does not know has no other
end() {
    echo "error: $1" >&2
    exit 1
}
in_volume() {
    git -c safe.directory='*' -C "$volume" "$@"
}
image=$(git -c safe.directory='*' -C "$source" rev-parse HEAD 2> /dev/null) ||
    end "the image holds no git history, so that nobody could tell what it runs: build it in a clone of the project"
if [ ! -w "$volume" ]; then
    end "user $(id -u) may not write to $volume: give the volume to that user (chown $(id -u) on the host), or name its owner (--user)"
fi
if [ ! -e "$volume/dvc.yaml" ] || [ -e "$unfinished" ]; then
    touch "$unfinished" # there until all is copied, so that a copy that was cut short is made again
    said=$(cp -R -f "$source/." "$volume/" 2>&1) || # -f: git writes its files read-only
        end "the project could not be copied to $volume ($(echo "$said" | tail -n 1)): make room there, then start again"
    rm "$unfinished"
fi
case ${1:-} in
update)
    if ! in_volume checkout --quiet HEAD -- dvc.lock outputs || # what runs write: DVC's cache has it again
        ! in_volume pull --quiet --no-rebase --no-edit "$source" HEAD; then
        in_volume merge --abort 2> /dev/null || true
        end "the image's commit could not be merged into the volume's, which stays as it was: merge it there by hand (git pull $source HEAD)"
    fi
    echo "the volume's commit $(in_volume rev-parse --short=9 HEAD) holds the image's $(printf %.9s "$image")"
    exit
    ;;
*)
    case "${1:-} $#" in
    git\ * | cat\ * | sh\ 1 | bash\ 1) exec "$@" ;; # which look and repair
    esac
    in_volume merge-base --is-ancestor "$image" HEAD 2> /dev/null ||
        end "the image holds commit $(printf %.9s "$image"), the volume $(in_volume rev-parse --short=9 HEAD 2> /dev/null || echo no commit), without it: merge it by this image's command update, or go on with the image of the volume's commit"
    ;;
esac
exec "$@"
