"""The report as one HTML page: every section, no request, no text that becomes markup, tables of every kind."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from components.certification.table import ABSTAIN
from components.evaluation.metrics import summarize
from components.evaluation.page import facts, pictures
from components.evaluation.page.charts import with_intervals
from components.evaluation.page.examples import nearest_of_another_class, searchable
from components.evaluation.page.level import groups_of, hits
from components.evaluation.page.render import render
from tests.support import reports
from tests.support.parsed_page import Parsed
from tests.support.reports import CLASSES, HOSTILE, RADII, description, image, preset_level, reference_level

SECTIONS = ["finding", "accuracy", "meaning", "distributions", "classes", "gallery", "attacks", "training", "cost"]
SECTIONS += ["assumptions", "provenance"]


@pytest.fixture(scope="module")
def page():
    levels = [reports.attacked(reference_level(0.25)), reference_level(0.5)]
    curve = pd.DataFrame({"radius": [0.0, 0.5], "certified_accuracy": [0.9, 0.6]})
    levels[1] = replace(levels[1], published_acr=0.736, published_curve=curve)
    return render("pets", description(), levels, image)


def test_every_section_is_there_and_says_something(page):
    parsed = Parsed(page)
    for section in SECTIONS:
        assert len(parsed.text[section].split()) > 10, section
    for said in (
        "30 test images",
        "Weakest",
        "Wrongly certified",
        "Published ACR (one-class): 0.736",
        "smoothmix",
        "d" * 16,
    ):
        assert said in page.replace("\u00a0", " "), said
    assert "d" * 17 not in page, "hashes are shortened"


def test_the_page_asks_for_nothing_and_is_small(page):
    parsed = Parsed(page)
    assert all(address.startswith(("#", "data:")) for address in parsed.addresses)
    assert not re.search(r"url\((?!#|\"?\$|\")", page)
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page
    assert len(page.encode()) < 5_000_000


def test_ids_differ_links_lead_somewhere_and_pictures_say_what_they_show(page):
    parsed = Parsed(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {address[1:] for address in parsed.addresses if address.startswith("#")} <= set(parsed.ids)
    assert parsed.alts
    assert all(parsed.alts)


@pytest.mark.medium
def test_the_accuracy_on_a_validation_split_is_drawn_where_there_is_one(page):
    said = "Accuracy on noisy validation images after each epoch"
    assert said not in page
    level = reference_level(0.5)
    history = level.history.assign(val_noisy_accuracy=[np.nan, 0.4, 0.5, 0.6])
    drawn = render("pets", description(), [replace(level, history=history), reference_level(0.25)], image)
    assert said in drawn
    assert (
        drawn.count("<svg ") == render("pets", description(), [level, reference_level(0.25)], image).count("<svg ") + 1
    )


def test_no_name_becomes_markup(page):
    assert HOSTILE not in page
    assert HOSTILE in Parsed(page).text["gallery"], "it is shown as text"
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    assert "<" not in data
    assert json.loads(data)["classes"] == CLASSES


@pytest.mark.medium
def test_the_same_files_give_the_same_page(page):
    levels = [reference_level(0.5)]
    assert render("pets", description(), levels, image) == render("pets", description(), levels, image)


@pytest.mark.medium
@pytest.mark.parametrize(
    "level",
    [
        reference_level(0.5, images=1),
        preset_level(0.5),
        reference_level(0.5, bound="one_class"),
        reference_level(0.5, bound=None, arithmetic=None),
    ],
    ids=["one row", "preset radii", "one-class bound", "older float table"],
)
def test_tables_of_every_kind_give_a_page(level):
    parsed = Parsed(render("pets", description(), [level], image))
    assert len(parsed.text["accuracy"].split()) > 10
    assert "nan" not in " ".join(parsed.text.values()).lower().split()
    float_noise = "Float arithmetic" in parsed.text["assumptions"]
    assert float_noise == (level.identity.get("arithmetic") is None)


def test_a_table_in_the_fields_form_without_logs_or_images_gives_a_page_that_says_what_is_missing():
    level = reference_level(0.5)
    table = level.table[["idx", "label", "predict", "radius", "correct"]]
    bare = replace(level, table=table, summary=summarize(table, RADII, level.identity), history=None, provenance={})
    parsed = Parsed(render("pets", description(), [bare], None, "they are on <another> machine"))
    assert "No pictures: they are on <another> machine" in parsed.text["gallery"]
    assert "No epochs are on record" in parsed.text["training"]
    assert "python -m pipelines.attack" in parsed.text["attacks"]
    assert "meaning" not in parsed.text
    assert parsed.alts == []


# --- what it says ------------------------------------------------------------------------------------------------


def test_the_finding_is_the_largest_radius_that_half_of_the_images_reach():
    levels = [reference_level(0.25), reference_level(0.5)]
    found = facts.finding(levels)
    offers = [
        (float(radius), level.key)
        for level in levels
        for radius, one in level.summary["certified_accuracy"].items()
        if one["value"] >= 0.5
    ]
    assert (found["radius"], found["level"].key) == max(offers)
    assert "30 test images" in found["said"]


def test_the_expected_number_of_wrong_answers_counts_the_images_without_one_too():
    """Of each image, answered or not, a wrong answer has at most the probability failure_prob."""
    level = reference_level(0.5)
    answered = int((level.table["predict"] != ABSTAIN).sum())
    assert answered < len(level.table)
    level = replace(level, summary=level.summary | {"failure_prob": 0.1})
    assert f"Of the {answered} answers here, at most 3.0 are expected" in facts.assumptions([level])[0]


def test_a_class_is_listed_with_what_it_is_taken_for_and_all_images_are_in_the_matrix():
    level = reference_level(0.5)
    found = facts.per_class(level, CLASSES, 0.25)
    assert [row["name"] for row in found["rows"]] == CLASSES
    assert sum(row["images"] for row in found["rows"]) == 30
    assert sum(cell["count"] for row in found["matrix"]["rows"] for cell in row["cells"]) == 30
    assert found["matrix"]["columns"][-1] == "abstains"


def test_of_many_classes_the_weakest_are_listed_and_the_rest_is_counted():
    level = reference_level(0.5, images=90)
    table = level.table.assign(label=range(90))
    found = facts.per_class(replace(level, table=table), [], 0.25)
    assert (len(found["rows"]), found["left_out"], found["matrix"]) == (facts.LISTED_CLASSES, 50, None)


def test_the_groups_hold_what_their_names_say():
    table = reference_level(0.5).table
    groups = groups_of(table, 3)
    assert (groups["strongest"]["radius"] == table["radius"].max()).all()
    assert groups["strongest"]["label"].nunique() == 3, "equal radii: the classes take turns"
    assert (groups["weakest"]["radius"] > 0).all()
    assert (groups["abstained"]["predict"] == ABSTAIN).all()
    wrong = groups["wrong"]
    assert len(wrong)
    assert (wrong["predict"] != wrong["label"]).all()
    assert not set(groups["strongest"]["idx"]) & set(groups["weakest"]["idx"])


def test_votes_sum_to_n_with_the_lost_ones():
    assert hits({"counts": "3 5 1", "selected": 1, "n": 10}) == {"n": 10, "own": 5, "rival": 0, "rivals": 3, "lost": 1}
    assert hits({"idx": 3}) is None


def test_intervals_enclose_their_curve():
    points = with_intervals(pd.DataFrame({"radius": [0, 1, 2], "certified_accuracy": [1.0, 0.5, 0.0]}), 20)
    assert (points["low"] <= points["certified_accuracy"]).all()
    assert (points["high"] >= points["certified_accuracy"]).all()
    assert points["high"].iloc[0] == 1.0
    assert points["low"].iloc[2] == 0.0


# --- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.3, 2.0])
def test_moved_images_are_as_far_as_they_say(radius):
    pixels, other = image(0), image(1)
    assert np.linalg.norm(pictures.spread(pixels, radius, 0) - pixels) == pytest.approx(radius)
    assert np.linalg.norm(pictures.gathered(pixels, radius)[0] - pixels) == pytest.approx(radius)
    moved, distance = pictures.towards(pixels, other, radius)
    assert distance == pytest.approx(np.linalg.norm(other - pixels))
    assert np.linalg.norm(moved - pixels) == pytest.approx(min(radius, distance))


def test_a_sheet_holds_all_images_unless_it_is_too_large():
    url, columns = pictures.sheet([image(i) for i in range(5)])
    assert columns == 3
    assert url.startswith("data:image/png")
    assert pictures.sheet([np.zeros((3, 224, 224))] * 2000) is None


def test_the_nearest_image_of_another_class_is_found():
    table = pd.DataFrame({"idx": [0, 1, 2, 3], "label": [0, 0, 1, 1]})
    values = {0: 0.0, 1: 0.1, 2: 0.9, 3: 0.5}
    assert nearest_of_another_class(table, 0, 0, lambda index: np.full((1, 2, 2), values[index])) == (3, 1)
    assert nearest_of_another_class(table[:2], 0, 0, lambda index: np.zeros((1, 2, 2))) is None


def test_the_search_holds_every_image_of_every_level():
    other = reference_level(0.25)
    levels = [reference_level(0.5), replace(other, table=other.table[::2])]
    found = searchable(levels, CLASSES, image)
    assert [row[0] for row in found["rows"]] == list(range(30))
    assert found["rows"][1][2][1] is None, "not certified at the second level"
    assert found["sheet"]["columns"] == 6
