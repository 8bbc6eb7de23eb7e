"""Which tables can be compared, and by which bound."""

from dataclasses import replace

import pandas as pd
import pytest

from components.certification.bounds import certified_radius, probability_bounds
from components.evaluation.paired import paired_acr_difference
from components.evaluation.verdict import Certified, comparable, differences
from tests.evaluation.test_verdict import IDENTITY, POLICY, SPREAD, certified, judged

# --- what can be compared ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images_sha256", "cd"),
        ("failure_prob", 0.01),
        ("n", 1000),
        ("n0", 10),
        ("seed", 8),
        ("mode", "sequential"),
        ("arithmetic", "exact"),
        ("early_abstention", True),
    ],
)
def test_another_procedure_or_other_images_are_refused_by_name(name, value):
    old = certified(SPREAD, identity=IDENTITY | {name: value})
    assert not comparable(old, certified(SPREAD))
    with pytest.raises(ValueError, match=rf"sigma 0\.5: .* differ in {name} \({value!r} and .*certify the champion"):
        judged(certified(SPREAD), old)


def test_weights_precision_and_compilation_belong_to_the_model():
    own = {"weights_sha256": "new", "precision": "bfloat16", "compiled": True}
    assert differences(IDENTITY, IDENTITY | own) == []
    assert comparable(certified(SPREAD), certified(SPREAD, identity=IDENTITY | own))


def test_other_images_of_the_same_set_cannot_be_compared():
    """Every second one: the identity does not say which."""
    old, new = certified(SPREAD), certified(SPREAD)
    fewer = Certified(old.table.iloc[::2], IDENTITY)
    assert not comparable(fewer, new)
    with pytest.raises(ValueError, match="different images or labels"):
        judged(new, fewer)


def test_the_order_of_the_rows_does_not_matter():
    shuffled = Certified(certified(SPREAD).table.sample(frac=1, random_state=0), IDENTITY)
    assert comparable(shuffled, certified(SPREAD))
    assert judged(shuffled, certified(SPREAD)).tests[0].difference.mean == 0


# --- the noise, and the bound ------------------------------------------------------------------------------------


EXACT = IDENTITY | {"arithmetic": "exact", "grid": 255, "thresholds_sha256": "t255", "bound": "one_class"}


def test_the_grid_belongs_to_the_model_and_the_evidence_names_both():
    """Cards of before have a finer one. To certify such a model anew would not change it."""
    old = certified(SPREAD, identity=EXACT | {"grid": 4080, "thresholds_sha256": "t4080"})
    new = certified(SPREAD, identity=EXACT)
    assert comparable(old, new)
    assert judged(new, old).notes == ["the champion's grid has 4080 steps, the challenger's 255"]


def test_other_thresholds_on_the_same_grid_are_another_noise():
    found = differences(EXACT, EXACT | {"thresholds_sha256": "other"})
    assert found == ["thresholds_sha256 ('t255' and 'other')"]


def test_a_table_of_floating_point_noise_is_not_compared_with_one_of_exact_noise():
    """Its noise is another, and its radii are of another arithmetic. Two of the former kind are compared as ever."""
    assert differences(IDENTITY, EXACT) == ["arithmetic ('float' and 'exact')"]
    assert not comparable(certified(SPREAD), certified(SPREAD, identity=EXACT))
    assert comparable(certified(SPREAD), certified(SPREAD, identity=IDENTITY | {"arithmetic": "float"}))
    assert judged(certified(SPREAD), certified(SPREAD)).procedure["arithmetic"] == "float"


def drawn(counts, bound, n=10_000, **facts):
    """A table made under `bound` of images of class 0 that was selected, with these hits of three classes."""
    rows = []
    for index, hits in enumerate(counts):
        sampled = sum(hits)
        p_lower, p_upper = probability_bounds(bound, hits, 0, sampled, 0.001) if sampled == n else (0.0, 1.0)
        radius = certified_radius(p_lower, 0.5, p_upper) if p_lower > p_upper else 0.0
        answer = 0 if radius else -1
        row = {"idx": index, "label": 0, "predict": answer, "radius": radius, "correct": int(radius > 0), "selected": 0}
        rows.append(row | {"counts": " ".join(map(str, hits)), "n": sampled, "p_lower": p_lower, "p_upper": p_upper})
    return Certified(pd.DataFrame(rows), EXACT | {"bound": bound, "n": n} | facts)


COUNTS = [(5500 + 40 * i, 2300 - 20 * i, 2200 - 20 * i) for i in range(100)]
"""Of weak images, on which the bounds differ most."""
TWO_BOUNDS = [("one_class", "two_class"), ("two_class", "one_class")]


@pytest.mark.parametrize(("old_bound", "new_bound"), TWO_BOUNDS)
def test_a_better_bound_is_no_better_model(old_bound, new_bound):
    """The same counts, read as they were written, differ by far; by either bound they are one."""
    old, new = drawn(COUNTS, old_bound), drawn(COUNTS, new_bound)
    assert abs(paired_acr_difference(old.table, new.table).mean) > 0.1
    assert comparable(old, new)
    verdict = judged(new, old, replace(POLICY, max_abstention=1.0, min_clean_accuracy=0.0))
    assert verdict.outcome == "HOLD"
    assert [test.difference.mean for test in verdict.tests] == [0, 0]
    assert verdict.procedure["bound"] == new_bound
    assert verdict.notes == [
        f"the champion's table was made with the {old_bound} bound and is compared by the "
        f"{new_bound} one, from its counts"
    ]


@pytest.mark.medium
def test_a_better_model_is_one_by_the_challenger_s_bound():
    better = [(a + 400, b - 200, c - 200) for a, b, c in COUNTS]
    verdict = judged(drawn(better, "two_class"), drawn(COUNTS, "one_class"))
    assert verdict.outcome == "PROMOTE"
    as_written = judged(drawn(better, "two_class"), drawn(COUNTS, "two_class"))
    assert verdict.tests == as_written.tests
    assert verdict.notes
    assert not as_written.notes


def test_images_that_the_one_class_bound_gave_up_early_are_compared_by_it():
    """With all samples the two-class bound might have certified them, for the champion as for the challenger."""
    early = {"early_abstention": True}
    weak = [(4800, 2600, 2600)] * 40
    old = drawn([(480, 260, 260)] * 40 + COUNTS, "one_class", **early)
    new = drawn(weak + COUNTS, "two_class", **early)
    assert (new.table["predict"] == 0).all()
    verdict = judged(new, old)
    assert verdict.procedure["bound"] == "one_class"
    assert [test.difference.mean for test in verdict.tests] == [0, 0]
    assert verdict.notes == [
        "the challenger's table was made with the two_class bound and is compared by the one_class one, from its counts"
    ]
    assert verdict.floors["abstention"] == 0, "of its own table"


def test_a_table_without_counts_is_compared_by_its_own_bound():
    new, old = drawn(COUNTS, "two_class"), drawn(COUNTS, "one_class")
    old = Certified(old.table[["idx", "label", "predict", "radius", "correct"]], old.identity)
    assert [test.difference.mean for test in judged(new, old).tests] == [0, 0]


def test_the_radii_in_question_are_those_that_the_bound_can_certify():
    """With all hits the one-class bound certifies a little more: it spends nothing on the rival."""
    hits = [(1000, 0, 0)] * 10
    largest = {bound: drawn(hits, bound, n=1000).table["radius"][0] for bound in ("one_class", "two_class")}
    assert largest["one_class"] > largest["two_class"]
    policy = replace(POLICY, radii=[largest["two_class"], largest["one_class"]])
    for bound, tests in (("one_class", 3), ("two_class", 2)):
        assert len(judged(drawn(hits, bound, n=1000), drawn(hits, bound, n=1000), policy).tests) == tests
