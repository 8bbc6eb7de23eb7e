"""Compares a challenger with the champion of its noise level: their tables, the verdict and its evidence.

Called by `pipelines.promote`. If images or procedure have changed since the champion was certified, it is first
certified anew on the challenger's images by the challenger's procedure.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from components.certification import table
from components.data.prepared import load_description
from components.evaluation.verdict import Certified, Verdict, comparable, differences, judge, markdown
from components.params import Params, Promote, level_key
from components.registry.aliases import CHALLENGER, CHAMPION, KEY, Version
from components.registry.model_files import NETWORK_CODE, WEIGHTS_SHA256, fetch_weights
from components.registry.promotions import Promotions
from components.registry.tables import registered_table, table_of
from components.registry.tracking import CONTENT, Tracking
from components.registry.versions import model_name
from components.tools.files import locked, read_json, write_json, write_text
from components.tools.hashing import hash_value
from pipelines import artifacts
from pipelines.cli import STOPPED_EARLY, StoppedEarly
from pipelines.watchdog import FLOW_PID


@dataclass(frozen=True)
class Contest:
    """The challenger and the champion of one noise level."""

    sigma: float
    promotions: Promotions
    challenger: Version
    champion: Version | None
    policy: Promote

    @property
    def nothing_new(self) -> str | None:
        """The reason why there is nothing to decide, or None."""
        if self.champion is None:
            return None
        if str(self.champion.version) == str(self.challenger.version):
            return f"v{self.champion.version} is champion, and nothing newer is registered"
        if content_of(self.champion) == content_of(self.challenger):
            return f"v{self.challenger.version} holds the weights of the champion, v{self.champion.version}"
        return None

    @property
    def key(self) -> str:
        """Hash of all that the verdict depends on.

        Raises:
            ValueError: a version lacks the tag that names its content.
        """
        rules = {name: value for name, value in asdict(self.policy).items() if not name.startswith("approval")}
        champion = self.champion and [str(self.champion.version), tag(self.champion, CONTENT)]
        return hash_value([tag(self.challenger, CONTENT), champion, rules])


def content_of(version: Version) -> tuple[str, str | None]:
    """The hashes of its weights and of the code of a network that is not ours."""
    return tag(version, WEIGHTS_SHA256), version.tags.get(NETWORK_CODE)


def tag(version: Version, name: str) -> str:
    """Raises ValueError when the version lacks it."""
    if name not in version.tags:
        raise ValueError(
            f"{version.name} v{version.version} has no tag {name}, so register did not make or did not finish it: "
            "run the register stage again, or point its alias at another version"
        )
    return str(version.tags[name])


@dataclass(frozen=True)
class Tables:
    """What is compared at one noise level."""

    challenger: Certified
    champion: Certified | None
    anew: str = ""
    """What is wrong with the champion's registered table, where another was made for this."""
    unfit: str = ""
    """Why the champion has no table to compare with, although there is a champion."""


class CannotBeCertified(Exception):
    """The champion does not fit the present images."""


def connect(params: Params) -> Tracking:
    return Tracking(artifacts.tracking_store(), params.register.name)


def promotions_at(params: Params, tracking: Tracking, sigma: float) -> Promotions:
    name = model_name(params.register.name, sigma)
    return Promotions(tracking.client, name, artifacts.promotion_locks())


def find_contest(params: Params, tracking: Tracking, sigma: float) -> Contest:
    promotions = promotions_at(params, tracking, sigma)
    promotions.mend()
    challenger = promotions.at_alias(CHALLENGER)
    if challenger is None:
        raise ValueError(f"{promotions.name} has no challenger: run the register stage")
    return Contest(sigma, promotions, challenger, promotions.at_alias(CHAMPION), params.promote)


def unreported(params: Params, tracking: Tracking) -> list[tuple[float, Version, bool, dict[str, Any] | None]]:
    """The promotions that no report has mentioned: noise level, version, whether it is champion now, its evidence.

    They come from calls that were killed or failed after promoting, or could not reach the webhook.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for sigma in params.sigmas:
            promotions = promotions_at(params, tracking, sigma)
            champion = promotions.aliases().get(CHAMPION)
            for version in promotions.unreported():
                evidence = promotions.stored_verdict(version, version.tags.get(KEY, ""), Path(folder))
                found.append((sigma, version, str(version.version) == champion, evidence))
    return found


def verdicts(params: Params, tracking: Tracking) -> list[tuple[Contest, dict[str, Any] | None]]:
    """Every noise level with its stored evidence, or None where there is nothing to decide.

    A stored verdict is kept; all missing verdicts are made together.
    """
    contests = [find_contest(params, tracking, sigma) for sigma in params.sigmas]
    evidence: dict[float, dict[str, Any]] = {}
    tables: dict[float, Tables] = {}
    with tempfile.TemporaryDirectory() as folder:
        for contest in contests:
            if contest.nothing_new:
                continue
            stored = contest.promotions.stored_verdict(contest.challenger, contest.key, Path(folder))
            if stored:
                evidence[contest.sigma] = stored
            else:
                tables[contest.sigma] = tables_to_compare(contest)
    pairs = {level_key(sigma): (level.challenger, level.champion) for sigma, level in tables.items()}
    judged = judge(pairs, params.promote)
    for contest in contests:
        if contest.sigma in tables:
            evidence[contest.sigma] = store(contest, judged[level_key(contest.sigma)], tables[contest.sigma])
    return [(contest, evidence.get(contest.sigma)) for contest in contests]


def tables_to_compare(contest: Contest) -> Tables:
    """The registered tables of challenger and champion; where the latter's does not fit, one that is made for this."""
    challenger = registered_table(contest.challenger)
    if contest.champion is None:
        return Tables(challenger, None)
    champion = table_of(contest.champion)
    if champion and comparable(champion, challenger):
        return Tables(challenger, champion)
    try:
        return Tables(challenger, certify_anew(contest, challenger), anew=misfit(champion, challenger))
    except CannotBeCertified as reason:
        return Tables(challenger, None, unfit=str(reason))


def misfit(champion: Certified | None, challenger: Certified) -> str:
    """Why the champion's registered table cannot be compared with the challenger's."""
    if champion is None:
        return "the registry holds no table of the champion's weights"
    differing = ", ".join(differences(champion.identity, challenger.identity)) or "the images that it has rows for"
    return f"the champion's registered table differs from the challenger's in {differing}"


def certify_anew(contest: Contest, challenger: Certified) -> Certified:
    """Certify the champion on the challenger's images by the challenger's procedure.

    The weights are kept in the state root, and the rows where every certification keeps them, so a second call draws no
    samples.

    Raises:
        CannotBeCertified: the champion was trained for other shapes, classes, or another sigma.
        ValueError: images or procedure here are not the challenger's; the registry does not hold the weights.
    """
    assert contest.champion
    here = load_description(artifacts.DESCRIPTION)
    if here.test_sha256 != challenger.identity["images_sha256"]:
        raise ValueError(
            f"{artifacts.TEST_SPLIT} holds other images than {contest.promotions.name} v{contest.challenger.version} "
            "was certified on, so the champion cannot be certified on those: run the pipeline here (`dvc repro`), then "
            "this"
        )
    folder = artifacts.champion_certified_anew(tag(contest.champion, WEIGHTS_SHA256))
    with locked(folder.with_suffix(".lock")):
        card = fetch_weights(contest.champion, folder / "model")
        if (card.image_shape, card.classes) != (here.image_shape, here.classes):
            raise CannotBeCertified(
                f"champion v{contest.champion.version} was trained on other image shapes or classes, so the two "
                "cannot be compared"
            )
        if card.grid % here.max_value:
            raise CannotBeCertified(
                f"champion v{contest.champion.version} has a grid of {card.grid} steps, on which pixels up to "
                f"{here.max_value} do not lie, so that the two cannot be compared"
            )
        certify(contest.sigma, folder / "model", folder / "certificates")
        identity = read_json(folder / "certificates" / table.IDENTITY, "run this again")
        champion = Certified(table.read(folder / "certificates" / "table.tsv"), identity)
    if differing := differences(champion.identity, challenger.identity):
        raise ValueError(
            f"certification here differs from that of {contest.promotions.name} v{contest.challenger.version} in "
            f"{', '.join(differing)} (here and there): run the pipeline here (`dvc repro`), then this"
        )
    return champion


def certify(sigma: float, model: Path, to: Path) -> None:
    """Run the certify stage on the champion's weights, with the processes that the parameters ask for."""
    print(f"certifying the champion anew at sigma {level_key(sigma)}: images or procedure have changed", flush=True)
    command = [sys.executable, "-m", "pipelines.certify", "--sigma", level_key(sigma)]
    ends_with = {FLOW_PID: str(os.getpid())} | os.environ  # it ends with the flow that started this process, if any
    code = subprocess.run([*command, "--model", str(model), "--to", str(to)], env=ends_with).returncode
    if code == STOPPED_EARLY:
        raise StoppedEarly("stopped while the champion was certified anew")
    if code:
        raise ValueError(
            f"certifying the champion anew at sigma {level_key(sigma)} failed, exit code {code}: see above"
        )


def store(contest: Contest, verdict: Verdict, tables: Tables) -> dict[str, Any]:
    """Put the evidence of a fresh verdict into the challenger's run; the evidence."""
    if tables.unfit and verdict.outcome == "PROMOTE":  # on the floors alone, as if there were no champion
        verdict = replace(verdict, outcome="HOLD", reasons=[tables.unfit])
    if tables.anew:
        verdict = replace(verdict, notes=[tables.anew, *verdict.notes])
    values = asdict(verdict)
    evidence = {
        "sigma": level_key(contest.sigma),
        "model": contest.promotions.name,
        "challenger": str(contest.challenger.version),
        "champion": str(contest.champion.version) if contest.champion else None,
        "challenger_run": str(contest.challenger.run_id),
        "champion_run": str(contest.champion.run_id) if contest.champion else None,
        "verdict": values.pop("outcome"),
        **values,
        "champion_certified_anew": bool(tables.anew),
        "policy": asdict(contest.policy),
    }
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        write_json(files / "verdict.json", evidence)
        write_text(files / "verdict.md", markdown(evidence))
        if tables.anew and tables.champion:
            tables.champion.table.to_csv(files / "champion_table.tsv", sep="\t", index=False)
            write_json(files / "champion_identity.json", tables.champion.identity)
        against = evidence["champion"]
        contest.promotions.store_verdict(contest.challenger, evidence["verdict"], against, contest.key, files)
    return evidence
