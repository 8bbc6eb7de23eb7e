"""Whether a challenger may take the champion's place: two tables of certificates, a policy, and the evidence.

Both were certified on the same images by the same procedure with the same noise. Where their bounds differ, both are
compared by one, from the counts that they hold. Per noise level: REJECT if a floor fails or a test shows a loss;
PROMOTE if the lower end of the ACR's paired interval exceeds `min_gain` and nothing is lost; else HOLD. All tests of
all levels (the paired t test of the ACR, McNemar's exact test of certified accuracy at each radius) are one family:
Holm's adjustment bounds the probability of any false loss by 1 - confidence.

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
from components.evaluation.rebound import UNSAID, bound_of, rebound
from components.params import Bound, Promote

Outcome = Literal["PROMOTE", "HOLD", "REJECT"]
MODEL_FACTS = ("weights_sha256", "network_code_sha256", "precision", "compiled", "grid", "thresholds_sha256")
"""The entries of a table's identity that describe the model; all others but the bound describe images and procedure.

The grid stands on the model's card and, with sigma, gives the thresholds of the noise. Radii on two grids are about the
same images in the same units, so they can be compared; and certifying a model anew would not change its grid.
"""
BOUND = "bound"
"""The entry that may differ: see `under_one_bound`."""
SHOWN = ("mode", "n0", "n", "failure_prob", "seed", "images_sha256", "arithmetic", BOUND)
"""The entries of the identity that the evidence repeats; the bound is the one that both are compared by."""


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
    notes: list[str]
    """What differs between the two tables and was compared all the same."""


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The entries on images and procedure in which two identities differ: each name, with both values."""
    first, second = UNSAID | first, UNSAID | second
    names = [name for name in {**first, **second} if name not in (*MODEL_FACTS, BOUND)]
    if first.get("grid") == second.get("grid"):
        names.append("thresholds_sha256")  # of the noise on one grid at one sigma: there is only one
    return [
        f"{name} ({first.get(name)!r} and {second.get(name)!r})"
        for name in names
        if first.get(name) != second.get(name)
    ]


def comparable(first: Certified, second: Certified) -> bool:
    """Whether both were certified on the same images by the same procedure."""
    columns = ["idx", "label"]
    images, others = (one.table.sort_values("idx")[columns].to_numpy() for one in (first, second))
    return not differences(first.identity, second.identity) and np.array_equal(images, others)


def under_one_bound(challenger: Certified, champion: Certified) -> tuple[Certified, Certified, list[str]]:
    """Both tables under one bound, from the counts that they hold, and a note on each that was made with the other.

    The bound is the challenger's, if the champion's table can be read under it; otherwise it is the one-class bound. A
    one-class table cannot be read under the two-class bound where early abstention spared samples: the two-class bound
    might have certified those images, so that the comparison would favour the challenger. The reverse is fair: what the
    two-class bound gives up early has no more hits than its rival, and the one-class bound needs more than half.
    """
    bounds = [bound_of(one.identity) for one in (challenger, champion)]
    if bounds[0] == bounds[1]:
        return challenger, champion, []
    bound: Bound = bounds[0] if bounds[1] == "two_class" or holds_all_counts(champion) else "one_class"
    pair = [
        Certified(rebound(one.table, one.identity, bound), one.identity | {BOUND: bound})
        for one in (challenger, champion)
    ]
    notes = [
        f"the {name}'s table was made with the {own} bound and is compared by the {bound} one, from its counts"
        for name, own in zip(("challenger", "champion"), bounds, strict=True)
        if own != bound
    ]
    return pair[0], pair[1], notes


def holds_all_counts(certified: Certified) -> bool:
    """Whether every row has the counts of all n samples."""
    table = certified.table
    return {"counts", "n"} <= set(table) and bool((table["n"] == certified.identity["n"]).all())


def judge(levels: dict[str, tuple[Certified, Certified | None]], policy: Promote) -> dict[str, Verdict]:
    """The verdict on each noise level's (challenger, champion or None).

    Raises:
        ValueError: a pair was not certified on the same images by the same procedure (what differs is named); preset
            radii include none of `policy.radii`.
    """
    compared = {key: compare(key, new, old, policy) for key, (new, old) in levels.items() if old}
    tests = adjust({key: tests for key, (tests, _, _) in compared.items()}, policy.confidence)
    verdicts = {}
    for key, (challenger, _) in levels.items():
        _, bound, notes = compared.get(key, ([], bound_of(challenger.identity), []))
        verdicts[key] = verdict(challenger, tests.get(key), policy, bound, notes)
    return verdicts


def compare(
    key: str, challenger: Certified, champion: Certified, policy: Promote
) -> tuple[list[Comparison], Bound, list[str]]:
    """The comparisons of one noise level, not adjusted yet, the bound that they are by, and notes for the evidence."""
    if differing := differences(champion.identity, challenger.identity):
        raise ValueError(
            f"sigma {key}: champion and challenger differ in {', '.join(differing)}: certify the champion anew"
        )
    grids = [one.identity.get("grid") for one in (champion, challenger)]
    notes = [f"the champion's grid has {grids[0]} steps, the challenger's {grids[1]}"] if grids[0] != grids[1] else []
    new, old, rebound_notes = under_one_bound(challenger, champion)
    return paired_tests(key, new, old, policy), bound_of(new.identity), notes + rebound_notes


def paired_tests(key: str, challenger: Certified, champion: Certified, policy: Promote) -> list[Comparison]:
    """The tests of one noise level, of tables under one bound."""
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
        largest = largest_radius(identity["n"], identity["failure_prob"], identity["sigma"], bound_of(identity))
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


def verdict(
    challenger: Certified, tests: list[Comparison] | None, policy: Promote, bound: Bound, notes: list[str]
) -> Verdict:
    """The rule, for one noise level; `tests` is None where there is no champion yet. The floors are those of the
    challenger's own table, whatever bound the tests are by."""
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
    facts = UNSAID | challenger.identity | {BOUND: bound, "images": len(challenger.table)}
    procedure = {name: facts[name] for name in (*SHOWN, "images")}
    return Verdict(outcome, reasons, floors, tests or [], procedure, notes)


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
    notes = "".join(f" Note: {note}." for note in evidence.get("notes", []))
    return f"Both on the same images by the same procedure: {facts}.{anew}{notes}"
