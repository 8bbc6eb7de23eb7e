"""List the contents of .state, and remove what is no longer needed.

`show` (the default) lists each item with its size, its age and what refers to it. `prune` asks, then removes items that
nothing refers to, that no living process holds, and that have not been written to for some days. No item is a result: a
training or certification whose progress is removed starts from the beginning. The tracking store and the worktree of
scheduled runs are never removed.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.certification.table import IDENTITY
from components.evaluation.report import text_table
from components.model.card import CARD
from components.params import Params
from components.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS
from components.registry.connection import in_one_line
from components.registry.model_files import WEIGHTS_SHA256
from components.registry.tracking import Tracking
from components.tools.files import TEMPORARY, free, is_held, read_json, remove
from components.tools.wording import counted
from pipelines import artifacts
from pipelines.champion_challenger import connect, promotions_at
from pipelines.cli import guard, load_params

DAYS = 14.0
KEPT = "always kept"


@dataclass(frozen=True)
class Item:
    """A file or folder of .state."""

    kind: str
    path: Path
    lock: Path | None
    """Held by the process that works on it."""
    needed: str
    """Who needs it; empty where nobody does."""

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(stat.st_size for stat in stats(self.path))

    @property
    def days(self) -> float:
        """Since anything in it was written."""
        return (time.time() - max((stat.st_mtime for stat in stats(self.path)), default=time.time())) / 86400


def stats(path: Path) -> Iterator[os.stat_result]:
    for one in [path, *path.rglob("*")]:
        with suppress(OSError):  # gone meanwhile
            yield one.lstat()


@dataclass(frozen=True)
class References:
    """What the present results and the registry refer to: the first 16 digits of its hash, and who needs it."""

    trainings: dict[str, str]
    tables: dict[str, str]
    weights: dict[str, str] | None
    """None: the registry cannot say."""


def scheduled_project() -> Path:
    return artifacts.project_in(artifacts.scheduled())


def references(params: Params, tracking: Tracking | None) -> References:
    """The references of the working copy, of the worktree of scheduled runs and of the registry's aliases."""
    trainings, tables = {}, {}
    for workspace, who in ((scheduled_project(), "scheduled runs"), (Path.cwd(), "working copy")):
        outputs = workspace / artifacts.OUTPUTS
        for card in outputs.glob(f"models/*/{CARD}"):
            key = read_json(card, "run the train stage again")["training_key"]
            trainings[artifacts.checkpoints(key).name] = who
        for identity in outputs.glob(f"certificates/*/{IDENTITY}"):
            table = artifacts.partial_table(read_json(identity, "run the certify stage again"))
            tables[table.name] = who
    for identity in artifacts.all_certified_anew().glob(f"*/certificates/{IDENTITY}"):
        table = artifacts.partial_table(read_json(identity, f"remove {identity.parents[1]}"))
        tables[table.name] = "champion certified anew"
    return References(trainings, tables, registered_weights(params, tracking))


def registered_weights(params: Params, tracking: Tracking | None) -> dict[str, str] | None:
    """The weights that aliases of the registry point at, each with its alias; None without a registry."""
    if tracking is None:
        return None
    found = {}
    for sigma in params.sigmas:
        promotions = promotions_at(params, tracking, sigma)
        for alias in (CHALLENGER, PREVIOUS, CHAMPION):
            with suppress(ValueError):  # there is no such model or version yet, or not any more
                if version := promotions.at_alias(alias):
                    folder = artifacts.champion_certified_anew(version.tags.get(WEIGHTS_SHA256, ""))
                    found[folder.name] = f"{alias} of {promotions.name}"
    return found


def find_items(refers: References) -> list[Item]:
    """All that lies in .state, and the unfinished files beside the results."""
    anew = {} if refers.weights is None else refers.weights
    unknown = "" if refers.weights is not None else "unknown: the registry does not answer"
    items = []
    for place, needed_by, otherwise in (
        (artifacts.all_checkpoints(), refers.trainings, ""),
        (artifacts.partial_tables(), refers.tables, ""),
        (artifacts.all_certified_anew(), anew, unknown),
    ):
        for folder in sorted(path for path in place.glob("*") if path.is_dir()):
            lock = folder.with_name(f"{folder.name}.lock")
            computed = "a shard that is being computed" if any(map(is_held, folder.glob("*.lock"))) else ""
            items.append(Item(place.name, folder, lock, needed_by.get(folder.name, computed or otherwise)))
        orphans = sorted(path for path in place.glob("*.lock") if not path.with_suffix("").is_dir())
        items += [Item("locks", lock, lock, "") for lock in orphans]
    items += [Item("running", mark, mark, unknown) for mark in sorted(artifacts.tracking_store().glob("running/*"))]
    items += [Item("locks", lock, lock, "") for lock in sorted(artifacts.promotion_locks().glob("*.lock"))]
    items += [Item("notifications", mark, None, "") for mark in sorted(artifacts.notifications().glob("*"))]
    items += [Item("unfinished", path, None, "") for path in unfinished()]
    for path, kind in ((artifacts.scheduled(), "worktree"), (artifacts.tracking_store(), "tracking store")):
        if path.exists():
            items.append(Item(kind, path, path.with_name(f"{path.name}.lock"), KEPT))
    return items


def unfinished() -> list[Path]:
    """Temporary files and folders that a killed process left, except those that its next start continues with."""
    places = [*artifacts.state_root().glob("*"), *artifacts.promotion_locks().glob("*")]
    places += artifacts.all_certified_anew().glob("*/*")
    for outputs in (artifacts.OUTPUTS, scheduled_project() / artifacts.OUTPUTS):
        places += outputs.rglob("*")
    found = sorted(path for path in places if path.name.endswith(TEMPORARY))
    going_on = {path.parent for path in found if path.name.endswith(f".moving{TEMPORARY}")}
    return [path for path in found if path.parent not in going_on]


def show(items: list[Item]) -> None:
    """Print the items and their total size."""
    rows, total = [], 0
    for item in items:
        held = "a living process" if item.lock and is_held(item.lock) else ""
        rows.append([item.kind, item.path.name[:40], size_text(item.size), f"{item.days:.1f}", held or item.needed])
        total += item.size
    print(text_table(["kind", "name", "size", "days", "needed by"], rows))
    print(f"{artifacts.state_root()}: {size_text(total)}")


def size_text(size: int) -> str:
    return f"{size / 2**20:.1f} MB"


def prunable(items: list[Item], days: float) -> list[Item]:
    """The items that nobody needs or holds and that are older than `days`."""
    return [i for i in items if not i.needed and i.days > days and not (i.lock and is_held(i.lock))]


def prune(items: list[Item], days: float, yes: bool) -> None:
    """Ask, then remove the items that nobody needs."""
    chosen = prunable(items, days)
    if not chosen:
        print(f"nothing to remove: all of it is needed, held, or younger than {counted(days, 'days', form='g')}")
        return
    show(chosen)
    if not yes and input(f"remove these {len(chosen)}? [y/N] ").strip().lower() not in ("y", "yes"):
        print("nothing was removed")
        return
    removed = sum(remove_item(item, days) for item in chosen)
    print(f"removed {size_text(removed)}")


def remove_item(item: Item, days: float) -> int:
    """Remove an item; return the bytes removed, 0 if a process has locked or written it since it was listed."""
    size = item.size
    if item.lock is None:
        remove(item.path)
        return size
    with free(item.lock) as nobody:
        if not nobody or (item.lock != item.path and item.days <= days):
            print(f"{item.path} is in use again: kept")
            return 0
        remove(item.path)
        item.lock.unlink(missing_ok=True)  # who waits for it sees that it is gone, and makes a new one
    return size


def registry(params: Params) -> Tracking | None:
    """The tracking server, with runs of dead processes ended; None where it does not answer or was never made."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (artifacts.tracking_store() / "mlflow.db").exists():
        return None
    try:
        with in_one_line("items that it may need are kept"):
            tracking = connect(params)
            tracking.sweep()
            return tracking
    except ValueError as error:
        print(error, file=sys.stderr)
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    commands.add_parser("show", help="list the items (the default)")
    pruning = commands.add_parser("prune", help="remove what nothing needs")
    pruning.add_argument("--older-than", type=float, default=DAYS, metavar="DAYS", help="(default: %(default)g)")
    pruning.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args()
    params = load_params()

    def act() -> None:
        items = find_items(references(params, registry(params)))
        if options.command == "prune":
            prune(items, options.older_than, options.yes)
        else:
            show(items)

    sys.exit(guard(act))


if __name__ == "__main__":
    main()
