"""Numbers in messages: singular and plural, by hand and in the lines that people see."""

import pytest

from components.tools import progress
from components.tools.progress import Progress
from components.tools.wording import counted


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 test images"), (1, "1 test image"), (2, "2 test images"), (10_000, "10000 test images")],
)
def test_one_alone_is_singular(number, shown):
    assert counted(number, "test images") == shown


def test_a_verb_follows_its_noun_and_a_number_its_form():
    assert [counted(n, "rows have", "row has") for n in (1, 2)] == ["1 row has", "2 rows have"]
    assert [counted(x, "minutes", form="g") for x in (1.0, 0.3)] == ["1 minute", "0.3 minutes"]
    assert counted(12345, "images", form=",") == "12,345 images"


@pytest.mark.parametrize(("total", "shown"), [(1, "certify: 1/1 image, "), (2, "certify: 2/2 images, ")])
def test_a_line_of_progress_counts_one_image_as_one(total, shown, capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    with Progress("certify", total, "images") as bar:
        bar.advance(total)
    assert capsys.readouterr().err.startswith(shown)
