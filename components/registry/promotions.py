"""The verdicts on the versions of one registered model, the questions to a person, and the promotions that follow."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from components.registry.aliases import (
    AGAINST,
    BY,
    CHAMPION,
    EVIDENCE,
    EXPIRES,
    KEY,
    NONE,
    STATE,
    STAYS,
    VERDICT,
    Aliases,
    Move,
    OutdatedVerdict,
    Version,
    missing,
    shown,
    utc,
)


class Promotions(Aliases):
    """The verdicts, questions and aliases of one registered model.

    Every method may raise MlflowException; those that change something can then be called again.
    """

    def store_verdict(self, version: Version, outcome: str, against: str | None, key: str, files: Path) -> None:
        """Store a verdict's evidence in the version's run, then write the verdict to the version's tags.

        Args:
            key: hash of the verdict's inputs; written last, so that an interrupted call is repeated.
            files: folder of the evidence.
        """
        place = f"promotion/{key[:16]}"
        with missing(_run_deleted(version)):
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
        if version.tags.get(KEY) != key or EVIDENCE not in version.tags:
            return None
        with missing(_run_deleted(version)):
            self.client.get_run(str(version.run_id))
        file = f"{version.tags[EVIDENCE]}/verdict.json"
        try:
            path = Path(self.client.download_artifacts(str(version.run_id), file, str(folder)))
            evidence: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it was deleted or torn: the same verdict is made again
            return None
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return evidence

    def ask(self, number: str, hours: float) -> str:
        """Ask whether a version shall become champion, unless that was asked before; return the question's state.

        A question that was open on an older version is superseded.
        """
        with self._alone():
            state = self._state_now(self.version(number))
            if state in ("open", "expired", *STAYS):
                return state
            self._supersede_others(number)
            self._tag(number, EXPIRES, utc(datetime.now(UTC) + timedelta(hours=hours)))
            self._tag(number, STATE, "open")
            return "open"

    def state(self, number: str) -> str:
        """The state of a version; empty if it was never judged."""
        return str(self.version(number).tags.get(STATE, ""))

    def open_question(self) -> Version | None:
        """The version that waits for an answer."""
        champion = self.aliases().get(CHAMPION)
        waiting = (v for v in self.versions() if v.tags.get(STATE) == "open" and str(v.version) != champion)
        return next((v for v in waiting if self._state_now(v) == "open"), None)

    def approve(self, number: str | None, by: str) -> Move:
        """Make a version champion because a person decides so: the one in question, or any that was judged against the
        present champion and not rejected.

        Raises:
            ValueError: no question is open; the version was never judged, or was rejected.
            OutdatedVerdict: the champion has changed since.
        """
        with self._alone():
            version = self._asked(number)
            outcome = version.tags.get(VERDICT)
            if outcome is None:
                raise ValueError(f"{self.name} v{version.version} has no verdict: run `python -m pipelines.promote`")
            if outcome == "REJECT":
                raise ValueError(f"{self.name} v{version.version} was rejected: train a better one")
            return self._promote(version, "approved", by)

    def keep_champion(self, number: str | None, by: str) -> str:
        """Refuse a version, which closes its question; return the version's number.

        Raises:
            ValueError: no question is open, or the version is champion.
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
                "`python -m pipelines.promote`, which asks if a person must decide"
            )
        return version

    def _state_now(self, version: Version) -> str:
        """The state of a version; a question whose time is up is closed."""
        state = str(version.tags.get(STATE, ""))
        if state == "open" and version.tags.get(EXPIRES, "") < utc(datetime.now(UTC)):
            self._tag(version.version, STATE, state := "expired")
        return state

    def promote(self, number: str, key: str, by: str) -> Move:
        """Make a version champion on its stored verdict, which has this key.

        Raises:
            OutdatedVerdict: the champion has changed since the verdict, or the verdict has.
        """
        with self._alone():
            version = self.version(number)
            if version.tags.get(KEY) != key:
                raise OutdatedVerdict(f"{self.name} v{number} was judged again meanwhile")
            return self._promote(version, "promoted", by)

    def _promote(self, version: Version, how: str, by: str) -> Move:
        champion, number = self.aliases().get(CHAMPION), str(version.version)
        tag = version.tags.get(AGAINST, NONE)
        against = None if tag == NONE else str(tag)
        if champion == number:
            raise OutdatedVerdict(f"{self.name} v{number} is champion already: there is nothing to do")
        if champion != against:
            raise OutdatedVerdict(
                f"the verdict on {self.name} v{number} was made against {shown(against)}, and champion is "
                f"{shown(champion)} now: run `python -m pipelines.promote` again"
            )
        return self._move(number, champion, champion, how, by)


def _run_deleted(version: Version) -> str:
    return (
        f"the run {version.run_id} of {version.name} v{version.version} was deleted, with its evidence: restore it "
        "(`mlflow runs restore --run-id`), or delete the version and run the register stage"
    )
