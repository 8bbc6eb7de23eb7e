"""Whether a challenger may take the champion's place: two tables of certificates, a policy, and the evidence.

Both were certified on the same images by the same procedure with the same noise. Per noise level: REJECT if a floor
fails or a test shows a loss; PROMOTE if the lower end of the ACR's paired interval exceeds `min_gain` and nothing is
lost; else HOLD. All tests of all levels (the paired t test of the ACR, McNemar's exact test of certified accuracy at
each radius) are one family: Holm's adjustment bounds the probability of any false loss by 1 - confidence.

Tables of preset radii have no ACR: they can show a loss but no gain, so a person decides. They only bound clean
accuracy and abstention, at their smallest radius: a floor that the bound does not prove means HOLD. At radius 0, if it
is preset, both are exact.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from components.certification.bounds import largest_radius
from components.certification.table import ABSTAIN, display_radius
from components.evaluation.metrics import certified_radii, is_certified, is_correct
from components.evaluation.paired import PairedDifference, paired_accuracy_difference, paired_acr_difference
from components.params import Promote

Outcome = Literal["PROMOTE", "HOLD", "REJECT"]
MODEL_FACTS = ("weights_sha256", "precision", "compiled")
"""The entries of a table's identity that describe the model; all others describe the images and the procedure."""
SHOWN = ("mode", "n0", "n", "failure_prob", "seed", "images_sha256")
"""The entries of the identity that the evidence repeats."""


@dataclass(frozen=True)
class Certified:
    """A model's table, and the identity that names all that the table depends on."""

    table: pd.DataFrame
    identity: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One paired comparison; `adjusted` is its p-value after Holm, over all noise levels."""

    what: str
    champion: float
    challenger: float
    difference: PairedDifference
    adjusted: float = 1.0

    def shows_loss(self, confidence: float) -> bool:
        return self.difference.mean < 0 and self.adjusted <= 1 - confidence


@dataclass(frozen=True)
class Verdict:
    outcome: Outcome
    reasons: list[str]
    floors: dict[str, float]
    """The challenger's clean_accuracy and abstention."""
    tests: list[Comparison]
    procedure: dict[str, Any]
    """The entries of the challenger's identity named in SHOWN, and the number of images."""


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The entries on images and procedure in which two identities differ: each name, with both values."""
    names = [name for name in {**first, **second} if name not in MODEL_FACTS and first.get(name) != second.get(name)]
    return [f"{name} ({first.get(name)!r} and {second.get(name)!r})" for name in names]


def comparable(first: Certified, second: Certified) -> bool:
    """Whether both were certified on the same images by the same procedure."""
    columns = ["idx", "label"]
    images, others = (one.table.sort_values("idx")[columns].to_numpy() for one in (first, second))
    return not differences(first.identity, second.identity) and np.array_equal(images, others)


def judge(levels: dict[str, tuple[Certified, Certified | None]], policy: Promote) -> dict[str, Verdict]:
    """The verdict on each noise level's (challenger, champion or None).

    Raises:
        ValueError: a pair was not certified on the same images by the same procedure (what differs is named); preset
            radii include none of `policy.radii`.
    """
    tests = {key: paired_tests(key, new, old, policy) if old else [] for key, (new, old) in levels.items()}
    tests = adjust(tests, policy.confidence)
    return {
        key: verdict(challenger, None if champion is None else tests[key], policy)
        for key, (challenger, champion) in levels.items()
    }


def paired_tests(key: str, challenger: Certified, champion: Certified, policy: Promote) -> list[Comparison]:
    """The comparisons of one noise level, not adjusted yet."""
    if differing := differences(champion.identity, challenger.identity):
        raise ValueError(
            f"sigma {key}: champion and challenger differ in {', '.join(differing)}: certify the champion anew"
        )
    old, new, tests = champion.table, challenger.table, []
    if challenger.identity["mode"] == "reference":
        scores = [float(certified_radii(table).mean()) for table in (old, new)]
        tests.append(Comparison("ACR", scores[0], scores[1], paired_acr_difference(old, new, policy.confidence)))
    for radius in radii_in_question(key, challenger.identity, policy):
        shares = [float(is_certified(table, radius).mean()) for table in (old, new)]
        difference = paired_accuracy_difference(old, new, radius, policy.confidence)
        tests.append(Comparison(f"certified accuracy at {radius:g}", shares[0], shares[1], difference))
    return tests


def radii_in_question(key: str, identity: dict[str, Any], policy: Promote) -> list[float]:
    """The policy's radii that the tables cover."""
    if identity["mode"] == "reference":
        largest = largest_radius(identity["n"], identity["failure_prob"], identity["sigma"])
        return [radius for radius in policy.radii if radius <= largest]
    answered = [radius for radius in policy.radii if radius in identity["radii"]]
    if not answered:
        raise ValueError(
            f"sigma {key}: promote.radii is {policy.radii}, but the tables cover only {identity['radii']}: "
            "give promote.radii and certify.sequential.radii a radius in common"
        )
    return answered


def adjust(tests: dict[str, list[Comparison]], confidence: float) -> dict[str, list[Comparison]]:
    """The same tests with p-values adjusted over all of them (Holm 1979)."""
    family = [test.difference.p_value for level in tests.values() for test in level]
    adjusted = iter(multipletests(family, alpha=1 - confidence, method="holm")[1] if family else [])
    return {key: [replace(test, adjusted=float(next(adjusted))) for test in level] for key, level in tests.items()}


def verdict(challenger: Certified, tests: list[Comparison] | None, policy: Promote) -> Verdict:
    """The rule, for one noise level; `tests` is None where there is no champion yet."""
    floors, failed, not_shown = check_floors(challenger, policy)
    losses = [describe(test) for test in tests or [] if test.shows_loss(policy.confidence)]
    gain = next((test.difference for test in tests or [] if test.what == "ACR"), None)
    outcome: Outcome
    if failed or losses:
        outcome, reasons = "REJECT", failed + losses
    elif not_shown:
        outcome, reasons = "HOLD", not_shown
    elif tests is None:
        outcome, reasons = "PROMOTE", ["there is no champion yet, and the floors hold"]
    elif gain is None:
        outcome, reasons = "HOLD", ["preset radii show no loss, and cannot show a gain in ACR"]
    elif gain.low > policy.min_gain:
        reason = f"ACR {beside(gain, policy.min_gain)}, above min_gain {policy.min_gain:g}, and nothing is lost"
        outcome, reasons = "PROMOTE", [reason]
    else:
        reason = f"ACR {beside(gain, policy.min_gain)}: not surely above min_gain {policy.min_gain:g}, no loss"
        outcome, reasons = "HOLD", [reason]
    procedure = {name: challenger.identity[name] for name in SHOWN} | {"images": len(challenger.table)}
    return Verdict(outcome, reasons, floors, tests or [], procedure)


def check_floors(challenger: Certified, policy: Promote) -> tuple[dict[str, float], list[str], list[str]]:
    """The challenger's clean accuracy and abstention; the floors that fail; those that preset radii leave open."""
    table = challenger.table
    values = {
        "clean_accuracy": float(is_correct(table).mean()),
        "abstention": float((table["predict"] == ABSTAIN).mean()),
    }
    broken = []
    if values["clean_accuracy"] < policy.min_clean_accuracy:
        broken.append(f"clean accuracy {values['clean_accuracy']:.3f} is below {policy.min_clean_accuracy:g}")
    if values["abstention"] > policy.max_abstention:
        broken.append(f"abstention {values['abstention']:.3f} is above {policy.max_abstention:g}")
    smallest = challenger.identity["radii"][0] if challenger.identity["mode"] == "sequential" else 0.0
    if smallest == 0:
        return values, broken, []
    advice = f"counted at the smallest preset radius, {smallest:g}: add 0.0 to certify.sequential.radii"
    return values, [], [f"{line}, {advice}" for line in broken]


def interval(difference: PairedDifference, digits: int = 3) -> str:
    return f"{difference.mean:+.{digits}f} in [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"


def beside(difference: PairedDifference, bound: float) -> str:
    """The interval, with enough digits to show on which side of a bound its lower end lies."""
    for digits in range(3, 17):
        shown = round(difference.low, digits)
        if difference.low == bound or (shown != bound and (shown > bound) == (difference.low > bound)):
            break
    return interval(difference, digits)


def describe(test: Comparison) -> str:
    return f"{test.what} {interval(test.difference)}: a loss, adjusted p {test.adjusted:.2g}"


def markdown(evidence: dict[str, Any]) -> str:
    """The evidence of one noise level as a section for people. Radii are rounded down."""
    against = f"champion v{evidence['champion']}" if evidence["champion"] else "no champion"
    lines = [
        f"## {evidence['verdict']}: {evidence['model']} v{evidence['challenger']} against {against}",
        *(f"- {reason}" for reason in evidence["reasons"]),
    ]
    if evidence.get("tests"):
        header = ["", "champion", "challenger", "difference", "paired interval", "p", "p (Holm)"]
        rows = [header, ["---", *["---:"] * 6], *map(_row, evidence["tests"])]
        lines += ["", *("| " + " | ".join(row) + " |" for row in rows), "", _facts(evidence)]
    return "\n".join(lines) + "\n"


def _row(test: dict[str, Any]) -> list[str]:
    show = display_radius if test["what"] == "ACR" else "{:.3f}".format
    d = test["difference"]
    interval = f"[{d['low']:+.4f}, {d['high']:+.4f}]"
    values = [show(test["champion"]), show(test["challenger"]), f"{d['mean']:+.4f}", interval]
    return [test["what"], *values, f"{d['p_value']:.2g}", f"{test['adjusted']:.2g}"]


def _facts(evidence: dict[str, Any]) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in evidence["procedure"].items())
    anew = " The champion was certified anew for this." if evidence["champion_certified_anew"] else ""
    return f"Both on the same images by the same procedure: {facts}.{anew}"
