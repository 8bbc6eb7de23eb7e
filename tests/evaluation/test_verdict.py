"""The promotion rule, on tables whose statistics can be counted by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from components.evaluation.paired import PairedDifference, paired_accuracy_difference, paired_acr_difference
from components.evaluation.verdict import Certified, beside, judge, markdown
from components.params import Promote

POLICY = Promote(min_gain=0.01, radii=[0.5], confidence=0.95, min_clean_accuracy=0.5, max_abstention=0.2)
IDENTITY = {
    "mode": "reference",
    "n0": 100,
    "n": 10_000,
    "failure_prob": 0.001,
    "early_abstention": False,
    "sigma": 0.5,
    "seed": 7,
    "images_sha256": "ab",
    "weights_sha256": "old",
    "precision": "float32",
    "compiled": False,
}
PRESET = IDENTITY | {"mode": "sequential", "radii": [0.25, 0.5]}


def certified(radii, predict=0, identity=IDENTITY):
    """A table of images of class 0, with those certified radii; -1 among the answers abstains."""
    radii = np.asarray(radii, dtype=float)
    table = pd.DataFrame({"idx": range(len(radii)), "label": 0, "predict": predict, "radius": radii})
    return Certified(table.assign(correct=(table["predict"] == 0).astype(int)), identity)


def radii_of(*counts):
    """That many images at each (radius, count)."""
    return np.concatenate([np.full(count, radius) for radius, count in counts])


def judged(challenger, champion, policy=POLICY):
    return judge({"0.5": (challenger, champion)}, policy)["0.5"]


# --- paired statistics against closed forms ----------------------------------------------------------------------


def test_the_interval_of_the_acr_is_the_t_interval_of_the_per_image_differences():
    old, new = certified([1.0, 0.2, 0.6, 0.4]), certified([1.1, 0.2, 0.9, 0.4])
    found = paired_acr_difference(old.table, new.table, 0.9)
    d = np.array([0.1, 0.0, 0.3, 0.0])
    error = d.std(ddof=1) / 2
    assert found.mean == pytest.approx(d.mean())
    assert found.standard_error == pytest.approx(error)
    assert (found.low, found.high) == pytest.approx(
        (d.mean() - stats.t.ppf(0.95, 3) * error, d.mean() + stats.t.ppf(0.95, 3) * error)
    )
    assert found.p_value == pytest.approx(2 * stats.t.sf(d.mean() / error, 3))


def test_the_test_of_certified_accuracy_is_mcnemar_s_exact_one():
    """Of 20 images 9 are certified by the second alone and 2 by the first alone: the rest says nothing."""
    first = certified(radii_of((0.6, 2), (0.1, 9), (0.6, 5), (0.1, 4)))
    second = certified(radii_of((0.1, 2), (0.6, 9), (0.6, 5), (0.1, 4)))
    found = paired_accuracy_difference(first.table, second.table, 0.5)
    assert found.mean == pytest.approx(7 / 20)
    assert found.p_value == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)
    reverse = paired_accuracy_difference(second.table, first.table, 0.5)
    assert (reverse.mean, reverse.low) == pytest.approx((-found.mean, -found.high))
    assert reverse.p_value == pytest.approx(found.p_value)


@pytest.mark.parametrize("compare", [paired_acr_difference, lambda *tables: paired_accuracy_difference(*tables, 0.5)])
def test_equal_tables_differ_in_nothing(compare):
    found = compare(certified([0.4, 0.6]).table, certified([0.4, 0.6]).table)
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_difference_without_any_spread_is_certain():
    found = paired_acr_difference(certified([0.25, 0.5]).table, certified([0.5, 0.75]).table)
    assert (found.mean, found.low, found.p_value) == (0.25, 0.25, 0)


def test_one_image_is_refused():
    with pytest.raises(ValueError, match="the tables hold 1 image: a comparison needs at least two"):
        paired_acr_difference(certified([0.4]).table, certified([0.5]).table)


# --- the rule ----------------------------------------------------------------------------------------------------


SPREAD = np.random.default_rng(0).uniform(0.1, 1.5, 200)
NOISE = np.random.default_rng(1).normal(0, 0.02, 200)


def test_a_gain_that_only_pairs_can_see_promotes():
    """Independent intervals overlap by far: the spread between images is 20 times the gain's."""
    verdict = judged(certified(SPREAD + 0.05 + NOISE), certified(SPREAD))
    assert verdict.outcome == "PROMOTE"
    acr = verdict.tests[0]
    assert acr.what == "ACR"
    assert acr.challenger - acr.champion == pytest.approx(acr.difference.mean)
    assert acr.difference.low > POLICY.min_gain
    independent_error = math.sqrt(2 * SPREAD.var(ddof=1) / 200)
    assert acr.difference.mean < 1.96 * independent_error


def test_the_same_with_the_roles_exchanged_is_rejected():
    verdict = judged(certified(SPREAD), certified(SPREAD + 0.05 + NOISE))
    assert verdict.outcome == "REJECT"
    assert any("ACR -0.0" in reason and "a loss" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("low", "bound", "shown"),
    [
        (0.0048, 0.005, "+0.0080 in [+0.0048, +0.0110]"),
        (0.00500001, 0.005, "+0.00800000 in [+0.00500001, +0.01100000]"),
        (0.003, 0.005, "+0.008 in [+0.003, +0.011]"),
        (0.005, 0.005, "+0.008 in [+0.005, +0.011]"),
    ],
)
def test_an_interval_is_printed_so_that_its_end_is_seen_on_its_side_of_the_bound(low, bound, shown):
    assert beside(PairedDifference(0.008, 0.001, low, 0.011, 0.5), bound) == shown


def test_an_equal_table_is_held():
    verdict = judged(certified(SPREAD), certified(SPREAD))
    assert verdict.outcome == "HOLD"
    assert "not surely above min_gain 0.01" in verdict.reasons[0]


def test_it_is_the_interval_s_lower_end_that_must_exceed_min_gain():
    challenger, champion = certified(SPREAD + 0.05 + NOISE), certified(SPREAD)
    low = judged(challenger, champion).tests[0].difference.low
    assert 0.04 < low < 0.05
    assert judged(challenger, champion, replace(POLICY, min_gain=low - 1e-9)).outcome == "PROMOTE"
    assert judged(challenger, champion, replace(POLICY, min_gain=low)).outcome == "HOLD"


def test_a_loss_at_one_radius_rejects_whatever_the_acr_gains():
    old = certified(radii_of((0.55, 60), (1.0, 140)))
    new = certified(radii_of((0.45, 60), (1.4, 140)))
    verdict = judged(new, old)
    assert verdict.tests[0].difference.low > 0.2
    assert verdict.outcome == "REJECT"
    assert verdict.reasons[0].startswith("certified accuracy at 0.5 -0.300 in [")
    assert judged(new, old, replace(POLICY, radii=[0.25])).outcome == "PROMOTE", "where it does not matter"


def lost(count):
    """A challenger that loses `count` of 200 images at radius .5, at .95 of the ACR."""
    old = certified(radii_of((0.55, 40), (1.0, 160)))
    return certified(radii_of((0.45, count), (0.55, 40 - count), (1.0, 160))), old


def test_holm_looks_at_all_radii_and_noise_levels_together():
    """Six losses, no gain: p = 2/2**6 = .031 alone, and .094 among three such tests and an ACR that is worse too."""
    new, old = lost(6)
    unadjusted = paired_accuracy_difference(old.table, new.table, 0.5).p_value
    assert unadjusted == pytest.approx(2 / 2**6)
    policy = replace(POLICY, radii=[0.1, 0.5, 0.9])
    alone = judge({"0.5": (new, old)}, policy)["0.5"]
    by_name = {test.what: test for test in alone.tests}
    p_values = sorted(test.difference.p_value for test in alone.tests)
    rank = p_values.index(unadjusted)
    holm = max(min(1.0, (4 - i) * p) for i, p in enumerate(p_values[: rank + 1]))
    assert by_name["certified accuracy at 0.5"].adjusted == pytest.approx(holm)
    assert holm > 0.05 > unadjusted
    others = {key: (certified(SPREAD), certified(SPREAD)) for key in ("0.25", "1.0")}
    together = judge({"0.5": (new, old), **others}, policy)["0.5"]
    assert all(
        more.adjusted >= less.adjusted and more.difference == less.difference
        for more, less in zip(together.tests, alone.tests, strict=True)
    )
    assert sum(test.adjusted for test in together.tests) > sum(test.adjusted for test in alone.tests)


def test_what_is_a_loss_alone_is_none_among_many():
    new, old = lost(6)
    policy = replace(POLICY, radii=[0.5])
    acr = paired_acr_difference(old.table, new.table).p_value
    crowd = {str(i): (certified(SPREAD), certified(SPREAD)) for i in range(3)}
    assert 2 * acr < 0.05 < 8 * acr
    assert judge({"0.5": (new, old)}, policy)["0.5"].outcome == "REJECT"
    assert judge({"0.5": (new, old), **crowd}, policy)["0.5"].outcome == "HOLD"


def test_radii_that_n_cannot_certify_are_left_out_of_the_family():
    verdict = judged(certified(SPREAD), certified(SPREAD), replace(POLICY, radii=[0.5, 1.5, 1.7, 9.0]))
    assert [test.what for test in verdict.tests] == [
        "ACR",
        "certified accuracy at 0.5",
        "certified accuracy at 1.5",
    ], "10,000 samples certify 1.59 at most"


# --- floors ------------------------------------------------------------------------------------------------------


def with_answers(right, wrong, withheld):
    answers = [0] * right + [1] * wrong + [-1] * withheld
    return certified([0.8] * right + [0.3] * wrong + [0.0] * withheld, answers)


@pytest.mark.parametrize(
    ("answers", "outcome", "reason"),
    [
        ((5, 5, 0), "PROMOTE", "there is no champion yet, and the floors hold"),
        ((49, 51, 0), "REJECT", "clean accuracy 0.490 is below 0.5"),
        ((8, 0, 2), "PROMOTE", "there is no champion yet, and the floors hold"),
        ((79, 0, 21), "REJECT", "abstention 0.210 is above 0.2"),
    ],
)
def test_without_a_champion_the_floors_decide(answers, outcome, reason):
    verdict = judged(with_answers(*answers), None)
    assert (verdict.outcome, verdict.reasons) == (outcome, [reason])
    assert verdict.floors["clean_accuracy"] == answers[0] / sum(answers)


def test_no_gain_makes_up_for_a_floor():
    champion = with_answers(10, 90, 0)
    challenger = with_answers(40, 60, 0)
    verdict = judged(challenger, champion)
    assert verdict.tests[0].difference.low > POLICY.min_gain
    assert (verdict.outcome, verdict.reasons) == ("REJECT", ["clean accuracy 0.400 is below 0.5"])


# --- preset radii ------------------------------------------------------------------------------------------------


def preset(accepted_half, accepted_quarter, abstained, radii=(0.25, 0.5)):
    values = radii_of((0.5, accepted_half), (0.25, accepted_quarter), (0.0, abstained))
    return certified(values, [0] * (accepted_half + accepted_quarter) + [-1] * abstained, PRESET | {"radii": [*radii]})


def test_preset_radii_show_a_loss_but_no_gain():
    worse, better = preset(50, 40, 10), preset(80, 10, 10)
    assert judged(worse, better).outcome == "REJECT"
    verdict = judged(better, worse)
    assert (verdict.outcome, [test.what for test in verdict.tests]) == ("HOLD", ["certified accuracy at 0.5"])
    assert "cannot show a gain in ACR" in verdict.reasons[0]


def test_preset_radii_that_the_policy_does_not_ask_for_are_refused_by_name():
    with pytest.raises(ValueError, match=r"promote\.radii is \[0\.4\], but the tables cover only \[0\.25, 0\.5\]"):
        judged(preset(8, 1, 1), preset(8, 1, 1), replace(POLICY, radii=[0.4]))


def test_a_floor_that_preset_radii_leave_open_is_asked_about():
    verdict = judged(preset(30, 10, 60), None)
    assert verdict.outcome == "HOLD"
    assert "clean accuracy 0.400 is below 0.5, counted at the smallest preset radius, 0.25" in verdict.reasons[0]
    assert judged(preset(30, 10, 60, radii=(0.0, 0.5)), None).outcome == "REJECT", "with radius 0 it is exact"
    assert judged(preset(80, 10, 10), None).outcome == "PROMOTE"


def test_the_evidence_reads_as_a_page():
    verdict = judged(certified(SPREAD + 0.05 + NOISE), certified(SPREAD))
    from dataclasses import asdict

    values = asdict(verdict)
    evidence = {"model": "m", "challenger": "7", "champion": "5", "champion_certified_anew": True}
    evidence |= {"verdict": values.pop("outcome")} | values
    page = markdown(evidence)
    assert page.startswith("## PROMOTE: m v7 against champion v5\n- ACR +0.0")
    assert "| certified accuracy at 0.5 | " in page
    assert "failure_prob 0.001" in page
    assert "certified anew" in page
    assert "arithmetic float, bound one_class" in page
    noted = markdown(evidence | {"notes": ["the grids differ"]})
    assert noted.rstrip().endswith("Note: the grids differ.")
    del evidence["notes"]
    assert markdown(evidence) == page, "evidence of before has none"
