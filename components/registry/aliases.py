"""The aliases of one registered model, above all `champion`, and how they move.

A move has four steps: write a note to the registered model, set the aliases (`previous`, then `champion`), add the move
to the history, remove the note. A call that finds a note first finishes that move, so a process that is killed at any
moment leaves nothing half done.

One lock file per model in the state root lets one process at a time make changes, among all that share the state root.
Hosts that share only the tracking server have no lock, and MLflow has no conditional write. So each host writes its
note with a random token, then reads note and champion again, and gives up if the note is another host's or the champion
has changed. Of overlapping moves one wins, with one exception: if two hosts do their last read and set their first
alias at the same moment, both moves are made; the last one holds, and the history shows both.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from components.registry.connection import quoted
from components.tools.files import locked

Version: TypeAlias = ModelVersion

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
NONE = "none"
MOVING = "promotion.moving"
"""Tag of a registered model: the move of the aliases that is under way."""
HISTORY = "champion."
"""Prefix of the registered model's tags that hold one change of champion each; the rest of their name is the time."""
VERDICT, AGAINST, KEY = "promotion.verdict", "promotion.against", "promotion.key"
EVIDENCE, STATE, EXPIRES, BY = "promotion.evidence", "promotion.state", "promotion.expires", "promotion.by"
"""Tags of a version: the verdict, the champion it was compared with, the hash of the verdict's inputs, the place of its
evidence, the version's state, the deadline for an answer, and who answered."""
UNREPORTED = "promotion.unreported"
"""Tag of a version: a verdict has made it champion, and no report has mentioned that yet."""
STAYS = ("refused", "rolled back")
"""States set by a person: only an approval changes them, never a verdict."""


class OutdatedVerdict(ValueError):
    """The champion is no longer the one that the verdict was made against."""


@dataclass(frozen=True)
class Move:
    """One change of champion."""

    champion: str
    previous: str | None
    left: str | None
    """The champion before."""
    how: str
    """`promoted`, `approved` or `rolled back`."""
    by: str
    at: str
    """UTC, ISO 8601."""
    token: str = ""
    """Distinguishes the note of this move from another host's."""


class Aliases:
    """The versions of one registered model, and the moves of its aliases.

    Every method may raise MlflowException; those that change something can then be called again.
    """

    def __init__(self, client: MlflowClient, name: str, locks: Path) -> None:
        """Args:
        locks: folder of the lock files.
        """
        self.client, self.name, self._lock = client, name, locks / f"{name}.lock"

    # --- reading ------------------------------------------------------------------------------------------------

    def aliases(self) -> dict[str, str]:
        """The version that each alias points at.

        Raises:
            ValueError: there is no such registered model.
        """
        return {alias: str(version) for alias, version in self._model().aliases.items()}

    def version(self, number: str) -> Version:
        """Raises ValueError when there is no such version."""
        with missing(f"{self.name} has no version {number}: see `python -m pipelines.lookup history`"):
            return self.client.get_model_version(self.name, number)

    def at_alias(self, alias: str) -> Version | None:
        """The version that an alias points at.

        Raises:
            ValueError: the version was deleted.
        """
        number = self.aliases().get(alias)
        remedy = f"the alias {alias} of {self.name} points at v{number}, which was deleted: remove the alias in MLflow"
        with missing(f"{remedy}, or point it at a version that is there"):
            return self.client.get_model_version(self.name, number) if number else None

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        found, token = [], None
        while True:
            page = self.client.search_model_versions(f"name = {quoted(self.name)}", page_token=token)
            found += list(page)
            token = page.token
            if not token:
                return sorted(found, key=lambda version: -int(version.version))

    def history(self) -> list[Move]:
        """All changes of champion, the first one first."""
        tags = self._model().tags
        return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(HISTORY)]

    def _model(self) -> RegisteredModel:
        with missing(f"there is no registered model {self.name}: run the register stage"):
            return self.client.get_registered_model(self.name)

    # --- moving -------------------------------------------------------------------------------------------------

    def rollback(self, by: str) -> Move:
        """Make the previous champion champion again.

        Raises:
            ValueError: there is no previous one.
        """
        with self._alone():
            aliases, before = self.aliases(), self.at_alias(PREVIOUS)
            if before is None:
                raise ValueError(
                    f"{self.name} has no previous champion: see `python -m pipelines.lookup history`, and approve one "
                    "of its versions by --version"
                )
            return self._move(str(before.version), None, aliases.get(CHAMPION), "rolled back", by)

    def mend(self) -> None:
        """Finish a move that a killed process left unfinished, if there is one."""
        with self._alone():
            pass

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process change anything within the block; first finish a move that was interrupted."""
        with locked(self._lock):
            if note := self._model().tags.get(MOVING):
                move = Move(**json.loads(note))
                lost = f"the move of {self.name} to v{move.champion} was cut short, and a version deleted since"
                with missing(f"{lost}: remove the registered model's tag {MOVING} in MLflow"):
                    self._finish(move)
            yield

    def _move(self, champion: str, previous: str | None, left: str | None, how: str, by: str) -> Move:
        """Raises OutdatedVerdict when another host moves at the same time, or has moved meanwhile."""
        move = Move(champion, previous, left, how, by, utc(datetime.now(UTC)), secrets.token_hex(8))
        note = json.dumps(asdict(move))
        self.client.set_registered_model_tag(self.name, MOVING, note)
        found = self._model()
        if found.tags.get(MOVING) != note:
            raise OutdatedVerdict(f"another host changes the champion of {self.name} at this moment")
        if (now := found.aliases.get(CHAMPION)) != left and str(now) != left:
            self._remove_note(move)
            raise OutdatedVerdict(f"another host has made {shown(now)} champion of {self.name} meanwhile")
        self._finish(move)
        return move

    def _finish(self, move: Move) -> None:
        """All steps of a move; repeating any of them changes nothing."""
        if move.previous is not None:
            self.client.set_registered_model_alias(self.name, PREVIOUS, move.previous)
        self.client.set_registered_model_alias(self.name, CHAMPION, move.champion)
        if move.previous is None:
            self.client.delete_registered_model_alias(self.name, PREVIOUS)
        changed = move.left if move.how == "rolled back" else move.champion
        if changed is not None:
            self._tag(changed, BY, move.by)
            self._tag(changed, STATE, move.how)
            if move.how == "promoted":
                self._tag(changed, UNREPORTED, "yes")
            else:
                self._untag(changed, UNREPORTED)
        self._supersede_others(move.champion)
        self.client.set_registered_model_tag(self.name, HISTORY + move.at, json.dumps(asdict(move)))
        self._remove_note(move)

    def _remove_note(self, move: Move) -> None:
        """Remove the note of a move, unless another host has replaced it."""
        note = self._model().tags.get(MOVING)
        if note and Move(**json.loads(note)) == move:
            self.client.delete_registered_model_tag(self.name, MOVING)

    # --- reports ------------------------------------------------------------------------------------------------

    def unreported(self) -> list[Version]:
        """The versions that a verdict promoted and no report has mentioned yet, the oldest first."""
        return [version for version in reversed(self.versions()) if UNREPORTED in version.tags]

    def mark_reported(self, number: str) -> None:
        self._untag(number, UNREPORTED)

    def _supersede_others(self, number: str) -> None:
        for other in self.versions():
            if other.tags.get(STATE) == "open" and str(other.version) != number:
                self._tag(other.version, STATE, "superseded")

    def _tag(self, number: str | int, key: str, value: str) -> None:
        self.client.set_model_version_tag(self.name, str(number), key, value)

    def _untag(self, number: str | int, key: str) -> None:
        if key in self.version(str(number)).tags:
            self.client.delete_model_version_tag(self.name, str(number), key)


@contextmanager
def missing(sentence: str) -> Iterator[None]:
    """Raise ValueError with this sentence if MLflow does not have, or no longer has, what is asked for."""
    try:
        yield
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise ValueError(sentence) from None
        raise


def shown(number: str | None) -> str:
    return f"v{number}" if number else "nobody"


def utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
