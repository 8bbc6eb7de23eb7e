"""Who is champion: the aliases of one registered model, the verdicts on its versions, and the questions to a person.

A move of the aliases is first written down on the registered model, then made (`previous`, then `champion`), then
added to the history, and the note removed: a call that finds such a note finishes that move before anything else, so
that a process killed at any moment leaves nothing half done. One lock per model, a file in the state root, lets one
process at a time change anything; processes that share no file system are told apart by the champion that their verdict
was made against.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

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
"""Tags of a version: the verdict, the champion it was made against, what it is a function of, where its evidence lies,
what became of it, until when a person may answer, and who answered."""
STAYS = ("refused", "rolled back")
"""States that a person gave: no verdict changes them, only an approval does."""


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


class Promotions:
    """The verdicts, questions and aliases of one registered model.

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
        try:
            return self.client.get_model_version(self.name, number)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise ValueError(f"{self.name} has no version {number}: see `python -m pipelines.lookup`") from None
            raise

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        found, token = [], None
        while True:
            page = self.client.search_model_versions(f"name = '{self.name}'", page_token=token)
            found += list(page)
            token = page.token
            if not token:
                return sorted(found, key=lambda version: -int(version.version))

    def history(self) -> list[Move]:
        """All changes of champion, the first one first."""
        tags = self._model().tags
        return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(HISTORY)]

    def _model(self) -> RegisteredModel:
        try:
            return self.client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise ValueError(f"there is no registered model {self.name}: run the register stage") from None
            raise

    # --- verdicts and questions ---------------------------------------------------------------------------------

    def store_verdict(self, version: Version, outcome: str, against: str | None, key: str, files: Path) -> None:
        """Keep a verdict's evidence in the version's run, then say of the version what the verdict is.

        Args:
            key: what the verdict is a function of; written last, so that an interrupted call is repeated.
            files: folder of the evidence.
        """
        place = f"promotion/{key[:16]}"
        self.client.log_artifacts(str(version.run_id), str(files), place)
        with self._alone():
            state = self.version(str(version.version)).tags.get(STATE)
            if state not in STAYS:
                self._tag(version.version, STATE, "rejected" if outcome == "REJECT" else "judged")
            self._tag(version.version, VERDICT, outcome)
            self._tag(version.version, AGAINST, against or NONE)
            self._tag(version.version, EVIDENCE, place)
            self._tag(version.version, KEY, key)

    def stored_verdict(self, version: Version, key: str, folder: Path) -> dict[str, Any] | None:
        """The evidence of the verdict with this key, if the version has one; fetched into `folder`."""
        if version.tags.get(KEY) != key:
            return None
        path = self.client.download_artifacts(
            str(version.run_id), f"{version.tags[EVIDENCE]}/verdict.json", str(folder)
        )
        evidence: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return evidence

    def ask(self, number: str, hours: float) -> str:
        """Open the question whether a version shall be champion, unless it was asked before; the question's state.

        A question that was open on an older version is superseded.
        """
        with self._alone():
            state = self._state_now(self.version(number))
            if state in ("open", "expired", *STAYS):
                return state
            self._supersede_others(number)
            self._tag(number, EXPIRES, _text(datetime.now(UTC) + timedelta(hours=hours)))
            self._tag(number, STATE, "open")
            return "open"

    def state(self, number: str) -> str:
        """What became of a version; empty where it was never judged."""
        return str(self.version(number).tags.get(STATE, ""))

    def open_question(self) -> Version | None:
        """The version that waits for an answer."""
        champion = self.aliases().get(CHAMPION)
        waiting = (v for v in self.versions() if v.tags.get(STATE) == "open" and str(v.version) != champion)
        return next((v for v in waiting if self._state_now(v) == "open"), None)

    def approve(self, number: str | None, by: str) -> Move:
        """Make a version champion because a person says so: the one that is asked about, or any that was judged against
        the present champion and not rejected.

        Raises:
            ValueError: nothing is asked; the version was never judged, or rejected.
            OutdatedVerdict: the champion has changed since.
        """
        with self._alone():
            version = self._asked(number)
            outcome = version.tags.get(VERDICT)
            if outcome is None:
                raise ValueError(f"{self.name} v{version.version} has no verdict: run `python -m pipelines.promote`")
            if outcome == "REJECT":
                raise ValueError(f"{self.name} v{version.version} was rejected: train a better one")
            return self._promote(version, _against(version), "approved", by)

    def refuse(self, number: str | None, by: str) -> str:
        """Close a question; the champion stays. The number of the version.

        Raises:
            ValueError: nothing is asked, or the version is champion.
        """
        with self._alone():
            version = self._asked(number)
            if str(version.version) == self.aliases().get(CHAMPION):
                raise ValueError(f"{self.name} v{version.version} is champion: `rollback` goes back")
            self._tag(version.version, BY, by)
            self._tag(version.version, STATE, "refused")
            return str(version.version)

    def _asked(self, number: str | None) -> Version:
        version = self.version(number) if number else self.open_question()
        if version is None:
            raise ValueError(
                f"{self.name} has no open question: name a judged version with --version, or run "
                "`python -m pipelines.promote`, which asks where there is something to ask"
            )
        return version

    def _state_now(self, version: Version) -> str:
        """The state of a version; a question whose time is up is closed."""
        state = str(version.tags.get(STATE, ""))
        if state == "open" and version.tags.get(EXPIRES, "") < _text(datetime.now(UTC)):
            self._tag(version.version, STATE, state := "expired")
        return state

    def _supersede_others(self, number: str) -> None:
        for other in self.versions():
            if other.tags.get(STATE) == "open" and str(other.version) != number:
                self._tag(other.version, STATE, "superseded")

    # --- aliases ------------------------------------------------------------------------------------------------

    def promote(self, number: str, key: str, by: str) -> Move:
        """Make a version champion on its stored verdict, which has this key.

        Raises:
            OutdatedVerdict: the champion has changed since the verdict, or the verdict has.
        """
        with self._alone():
            version = self.version(number)
            if version.tags.get(KEY) != key:
                raise OutdatedVerdict(f"{self.name} v{number} was judged again meanwhile")
            return self._promote(version, _against(version), "promoted", by)

    def rollback(self, by: str) -> Move:
        """Make the previous champion champion again.

        Raises:
            ValueError: there is no previous one.
        """
        with self._alone():
            aliases = self.aliases()
            if PREVIOUS not in aliases:
                raise ValueError(
                    f"{self.name} has no previous champion: see `python -m pipelines.lookup history`, and approve one "
                    "of its versions by --version"
                )
            return self._move(aliases[PREVIOUS], None, aliases.get(CHAMPION), "rolled back", by)

    def mend(self) -> None:
        """Finish the move of a process that was killed in it, if any."""
        with self._alone():
            pass

    def _promote(self, version: Version, against: str | None, how: str, by: str) -> Move:
        champion, number = self.aliases().get(CHAMPION), str(version.version)
        if champion == number:
            raise OutdatedVerdict(f"{self.name} v{number} is champion already: there is nothing to do")
        if champion != against:
            raise OutdatedVerdict(
                f"the verdict on {self.name} v{number} was made against {_shown(against)}, and champion is "
                f"{_shown(champion)} now: run `python -m pipelines.promote` again"
            )
        return self._move(number, champion, champion, how, by)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process change anything meanwhile; a move that was cut short is finished first."""
        with locked(self._lock):
            if note := self._model().tags.get(MOVING):
                self._finish(Move(**json.loads(note)))
            yield

    def _move(self, champion: str, previous: str | None, left: str | None, how: str, by: str) -> Move:
        move = Move(champion, previous, left, how, by, _text(datetime.now(UTC)))
        self.client.set_registered_model_tag(self.name, MOVING, json.dumps(asdict(move)))
        self._finish(move)
        return move

    def _finish(self, move: Move) -> None:
        """All steps of a move; repeating any of them changes nothing."""
        if move.previous is not None:
            self.client.set_registered_model_alias(self.name, PREVIOUS, move.previous)
        self.client.set_registered_model_alias(self.name, CHAMPION, move.champion)
        if move.previous is None:
            self.client.delete_registered_model_alias(self.name, PREVIOUS)
        if move.how != "rolled back":
            self._tag(move.champion, BY, move.by)
            self._tag(move.champion, STATE, move.how)
        elif move.left is not None:
            self._tag(move.left, BY, move.by)
            self._tag(move.left, STATE, move.how)
        self._supersede_others(move.champion)
        self.client.set_registered_model_tag(self.name, HISTORY + move.at, json.dumps(asdict(move)))
        self.client.delete_registered_model_tag(self.name, MOVING)

    def _tag(self, number: str | int, key: str, value: str) -> None:
        self.client.set_model_version_tag(self.name, str(number), key, value)


def _against(version: Version) -> str | None:
    against = version.tags.get(AGAINST, NONE)
    return None if against == NONE else str(against)


def _shown(number: str | None) -> str:
    return f"v{number}" if number else "nobody"


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
