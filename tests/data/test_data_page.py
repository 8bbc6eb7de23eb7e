"""The page of the prepared data: every section, each broken row with its files, a bounded size."""

import re

import numpy as np
import pytest

from components.data.expectations import Broken, Place
from components.data.page.shown import evenly
from components.data.prepared import Split
from tests.support.data_pages import BLANK, HOSTILE, SCARCE, Made
from tests.support.parsed_page import Parsed

SECTIONS = ["finding", "expectations", "classes", "samples", "noise", "facts"]


@pytest.fixture(scope="module")
def broken():
    return Parsed(Made().page(Made().twins(3), BLANK, SCARCE))


def test_fit_data_has_every_section_but_that_of_broken_rows():
    parsed = Parsed(Made().page())
    assert [section for section in parsed.text if section] == SECTIONS
    assert all(len(parsed.text[section].split()) > 10 for section in SECTIONS)
    assert "Fit for training: all 1 expectations hold on 72 images." in parsed.text["finding"]
    assert set(parsed.ids) >= {address[1:] for address in parsed.addresses if address.startswith("#")}


def test_broken_rows_stand_as_pictures_beside_their_twins_with_file_and_class(broken):
    assert list(filter(None, broken.text))[:2] == ["finding", "broken"]
    assert "Not fit for training: 3 of 4 expectations are broken, by 5 rows." in broken.text["finding"]
    said = " ".join(broken.text["broken"].split())
    for name in ("test image 2", "test/0/<b>2.png", "train image 3", "train/0/<b>3.png", "class: cat"):
        assert name in said
    assert "test class cat (1 image)" in said
    assert "constant image 1 row; stops the pipeline" in said
    assert "train image 3, of class cat, train/0/<b>3.png" in broken.alts


def test_nothing_is_asked_for_and_names_stay_text(broken):
    assert all(re.match("data:|#", address) for address in broken.addresses)
    assert all(broken.alts)
    page = Made().page(BLANK)
    assert HOSTILE not in page
    assert "<b>3.png" not in page
    assert "script-src" not in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in page


def test_of_a_published_set_broken_rows_are_shown_and_stop_nothing():
    known = Broken("image that also occurs with another label", ["train image 1"], False, [[Place("train", 1)]])
    parsed = Parsed(Made().page(known))
    assert "Fit for training: 1 of 2 expectations hold" in parsed.text["finding"]
    assert "part of the published set" in parsed.text["broken"]


def test_an_image_that_cannot_be_read_leaves_its_name_and_the_reason():
    page = Made(unreadable="cats/3.jpg: no such file").page(BLANK)
    parsed = Parsed(page)
    assert "No picture: cats/3.jpg: no such file" in parsed.text["broken"]
    assert "train image 3" in parsed.text["broken"]
    assert "noise" not in parsed.text


def test_labels_without_a_class_or_an_image_are_shown():
    made = Made()
    labels = made.splits["train"].labels.astype(float)
    labels[[3, 4]] = [7, np.nan]
    made.splits["train"] = Split(np.empty((0, 3, 8, 8)), labels)
    rows = Broken("label outside", ["a", "b", "c"], True, [[Place("train", i)] for i in (3, 4, 99)])
    said = " ".join(Parsed(made.page(rows)).text["broken"].split())
    assert "train image 3 class: 7 train image 4 class: nan train image 99 class: none" in said


def test_classes_have_counts_and_those_with_too_few_images_say_so():
    made = Made(classes=["a", "b", "c"])
    keep = np.flatnonzero(np.arange(36) < 27)
    made.splits["test"] = Split(np.empty((0, 3, 8, 8)), made.splits["test"].labels[keep])
    said = Parsed(made.page()).text["classes"].split()
    assert said[-6:] == ["a1212", "b1212", "c12✗", "too", "few:", "3"]


def test_more_rows_than_are_shown_are_named_and_more_than_that_counted():
    made = Made(per_class=1000)
    rows = made.twins(2500)
    parsed = Parsed(made.page(rows))
    assert parsed.text["broken"].count("class: ") == 400
    assert "2,476 more" in parsed.text["broken"]
    assert "test image 2199 = train image 2200" in parsed.text["broken"]
    assert "and 300 more" in parsed.text["broken"]


@pytest.mark.medium
def test_many_classes_of_large_images_make_a_page_below_5_mb_that_reads_few_images():
    made = Made(classes=[f"a class with a long name, number {i}" for i in range(1000)], side=70, per_class=3)
    page = made.page(made.twins(2000), BLANK)
    assert len(page.encode()) < 5_000_000
    assert len(made.asked) < 1400
    assert "999" in Parsed(page).text["samples"], "each class has a sample"


def test_samples_are_spread_over_a_class():
    assert evenly(np.arange(100), 4).tolist() == [12, 37, 62, 87]
    assert evenly(np.arange(2), 4).tolist() == [0, 1]
    assert evenly(np.arange(0), 4).tolist() == []


def test_noise_is_shown_at_each_sigma_and_not_averaged_away():
    made = Made(side=300)
    parsed = Parsed(made.page())
    assert [alt for alt in parsed.alts if "σ 1.0" in alt]
    assert "224×224 pixels in the middle" in parsed.text["noise"]
    assert "± 63.75" in parsed.text["noise"]
    assert "519.6" in parsed.text["noise"], "σ √d = 1.0 √(3·300·300)"
