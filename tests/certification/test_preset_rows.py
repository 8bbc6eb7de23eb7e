"""Certificates of preset radii as rows: written, read, topped up, and under the other bound."""

from dataclasses import replace

import pandas as pd
import pytest

from components.certification import table
from components.certification.preset_radii import COLUMNS, format_row, parse_row
from components.evaluation.audit import inconsistent_rows
from components.evaluation.rebound import rebound
from tests.support.half_spaces import four_classes, random_images
from tests.support.presets import SIGMA, Recorded, answering, at, decisions, run
from tests.support.procedures import certify_radii

BOUNDS = ["one_class", "two_class"]


# --- topping up --------------------------------------------------------------------------------------------------


def through_a_table(certificate, radii):
    """What a row that was written and read again says."""
    return None if certificate is None else parse_row(format_row(7, 1, certificate), radii)


@pytest.mark.parametrize("radius", [0.2, 0.45, 0.7])
def test_topping_up_gives_what_an_uninterrupted_run_gives(radius):
    """Also when what was computed before comes from a row of a table."""
    radii = [0.1, 0.3, 0.4]
    for index in range(3):
        sampler = Recorded(at(radius))
        whole = run(sampler, radii, max_n=8000, index=index)
        drawn, topped_up = sampler.ranges, None
        sampler.ranges = []
        for max_n in (50, 100, 800, 2000, 2000, 3000, 8000):
            topped_up = run(sampler, radii, max_n=max_n, index=index, earlier=through_a_table(topped_up, radii))
            assert topped_up.n <= max_n
        assert topped_up == whole
        assert format_row(7, 1, topped_up) == format_row(7, 1, whole)
        assert sampler.ranges == drawn


def test_topping_up_continues_an_undecided_answer_and_draws_nothing_for_a_decided_one():
    sampler = Recorded(at(0.5))
    short = run(sampler, [0.45], max_n=100)
    assert decisions(short) == ["undecided"]
    sampler.ranges = []
    long = run(sampler, [0.45], max_n=20_000, earlier=short)
    assert decisions(long) == ["accept"]
    assert sampler.ranges[0] == (200, 300)
    sampler.ranges = []
    assert run(sampler, [0.45], max_n=100_000, earlier=long) == long
    assert sampler.ranges == []


def test_topping_up_keeps_what_was_accepted_though_the_counts_no_longer_would():
    sampler = answering([1] * 100 + [1] * 45 + [0] * 755)
    short = run(sampler, [0.1, 0.45], max_n=50)
    assert decisions(short) == ["accept", "undecided"]
    assert decisions(run(sampler, [0.1, 0.45], max_n=800, earlier=short)) == ["accept", "reject"]


@pytest.mark.parametrize(
    "change",
    [{"radii": [0.1]}, {"radii": [0.1, 0.5]}, {"n0": 50}, {"sampler": at(0.45, 1.0)}, {"failure_prob": 1e-9}],
)
def test_topping_up_with_other_radii_or_settings_is_refused(change):
    earlier = run(at(0.45), [0.1, 0.49], max_n=400)
    assert decisions(earlier) == ["accept", "undecided"]
    with pytest.raises(ValueError, match="image 0: the earlier certificate has other"):
        run(**{"sampler": at(0.45), "radii": [0.1, 0.49], "max_n": 800, "earlier": earlier} | change)


def test_a_forged_acceptance_is_refused():
    earlier = run(at(0.5), [0.45], max_n=100)
    forged = replace(earlier, answers=[replace(earlier.answers[0], decision="accept")])
    with pytest.raises(ValueError, match="earlier certificate"):
        run(at(0.5), [0.45], max_n=800, earlier=forged)


@pytest.mark.parametrize("index", range(4))
def test_topping_up_goes_on_against_the_rival(index):
    """Four classes, of which none may have a half."""
    sampler, image = four_classes((1, 2, 2), SIGMA), random_images(1, 2, 2, seed=index)
    radii = [0, 0.05, 0.1, 0.2, 0.3]
    options = {"n0": 100, "failure_prob": 0.001, "seed": 0, "index": index, "bound": "two_class"}
    whole, topped_up = certify_radii(sampler, image, radii, max_n=5000, **options), None
    for max_n in (50, 200, 1000, 5000):
        earlier = through_a_table(topped_up, radii)
        topped_up = certify_radii(sampler, image, radii, max_n=max_n, earlier=earlier, **options)
    assert topped_up == whole


# --- rows --------------------------------------------------------------------------------------------------------


def test_a_row_says_all_that_the_certificate_says(tmp_path):
    radii = [0.1, 0.3, 0.49, 0.9]
    certificate = run(at(0.5), radii, max_n=800)
    assert set(decisions(certificate)) == {"accept", "undecided", "reject"}
    line = format_row(7, 1, certificate)
    assert parse_row(line, radii) == certificate
    assert table.samples(line) == certificate.n0 + certificate.n
    table.write(tmp_path / "table.tsv", [line], COLUMNS)
    row = pd.Series(table.read(tmp_path / "table.tsv").iloc[0])
    assert (row["idx"], row["label"], row["predict"], row["correct"]) == (7, 1, 1, 1)
    assert (row["radius"], row["n"]) == (certificate.radius, certificate.n)
    assert (row["p_lower"], row["p_upper"]) == (certificate.p_lower, certificate.p_upper)
    assert row["decisions"].split(" ") == decisions(certificate)
    assert row["looks"].split(" ") == [f"{answer.k}/{answer.rival}/{answer.t}" for answer in certificate.answers]


def test_a_row_of_other_radii_is_refused():
    line = format_row(7, 1, run(at(0.5), [0.1, 0.3]))
    with pytest.raises(ValueError, match="zip"):
        parse_row(line, [0.1])


# --- tables ------------------------------------------------------------------------------------------------------

RADII = [0, 0.05, 0.1, 0.2, 0.3]


def table_of(tmp_path, bound):
    """Of twelve images of four classes, with its identity."""
    sampler, facts = four_classes((1, 2, 2), SIGMA), {"n0": 100, "failure_prob": 0.001, "bound": bound}
    lines = []
    for index in range(12):
        image = random_images(1, 2, 2, seed=index)
        certificate = certify_radii(sampler, image, RADII, max_n=2000, seed=0, index=index, **facts)
        lines.append(format_row(index, certificate.selected if index else 3 - certificate.selected, certificate))
    table.write(tmp_path / "table.tsv", lines, COLUMNS)
    identity = facts | {"mode": "sequential", "sigma": SIGMA, "n": 2000, "radii": RADII, "reject_prob": 1e-4}
    return table.read(tmp_path / "table.tsv"), identity


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_audit_computes_the_same_from_a_row(tmp_path, bound):
    rows, identity = table_of(tmp_path, bound)
    assert inconsistent_rows(rows, identity) == []
    certified = rows[(rows["radius"] > 0) & (rows["radius"] < RADII[-1])].index[0]
    for column, more in (("radius", RADII[-1]), ("p_lower", rows["p_lower"][certified] + 1e-6)):
        changed = rows.copy()
        changed.loc[certified, column] = more
        assert inconsistent_rows(changed, identity) == [certified]
    changed = rows.copy()
    changed.loc[certified, "looks"] = " ".join("2000/0/2000" for _ in RADII)
    assert inconsistent_rows(changed, identity) == [certified]


def test_rows_of_before_are_read_with_their_own_prior():
    """Made by version 1.1: looks of hits and samples, a prior that is not truncated, no p_upper and no bound."""
    identity = {"mode": "sequential", "sigma": SIGMA, "n": 200, "failure_prob": 0.001, "reject_prob": 1e-4}
    identity |= {"radii": [0.1, 0.5]}
    row = {"idx": 7, "label": 1, "predict": 1, "radius": 0.1, "correct": 1, "selected": 1, "n0": 100, "n": 200}
    row |= {"counts": "20 180", "p_lower": 0.781460926, "decisions": "accept undecided", "looks": "45/50 180/200"}
    less = row | {"idx": 8, "counts": "140 60", "radius": 0.0, "predict": -1, "correct": 0, "p_lower": 0.172460663}
    less |= {"decisions": "reject reject", "looks": "60/200 60/200"}
    assert inconsistent_rows(pd.DataFrame([row, less]), identity) == []
    assert inconsistent_rows(pd.DataFrame([row | {"p_lower": 0.9}, less | {"p_lower": 0.3}]), identity) == [7, 8]
    under_the_other = rebound(pd.DataFrame([row, less]), identity, "two_class")
    assert under_the_other["looks"].tolist() == ["180/20/200 180/20/200", "60/140/200 60/140/200"]
    assert (under_the_other["p_upper"] <= 1).all()


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_table_under_the_other_bound_is_decided_by_its_final_counts(tmp_path, bound):
    other = BOUNDS[1 - BOUNDS.index(bound)]
    rows, identity = table_of(tmp_path, bound)
    assert rebound(rows, identity, bound) is rows
    changed = rebound(rows, identity, other)
    assert inconsistent_rows(changed, identity | {"bound": other}) == []
    assert not changed["radius"].equals(rows["radius"])
    assert changed["counts"].equals(rows["counts"])
    direct, _ = table_of(tmp_path, other)
    for mine, run_so in zip(changed.itertuples(), direct.itertuples(), strict=True):
        assert mine.correct == int(mine.predict == mine.label)
        if run_so.n <= mine.n:  # else it may see at later looks what these counts leave open
            pairs = zip(mine.decisions.split(" "), run_so.decisions.split(" "), strict=True)
            assert all("undecided" in pair or pair[0] == pair[1] for pair in pairs)
