"""The rows of a table as they are computed: topped up, kept when stopped, and not stopped by what lies beside them."""

import time

import numpy as np
import pytest

from components.certification import table
from components.certification.procedures import PROCEDURES
from components.certification.rows import certify_missing, earlier_rows
from components.certification.side_by_side import NEVER, Stopping
from components.certification.table import PartialTable
from components.params import Certify, Sequential
from tests.support.half_spaces import HalfSpaces, random_images, sampler_of

SIGMA, LABELS = 0.5, np.ones(12, dtype=int)
IMAGES = random_images(12, 1, 2, 2)


def settings(mode="sequential", n=2000):
    radii = Sequential(radii=[0.1, 0.5], reject_prob=1e-4)
    return Certify(mode=mode, n=n, sequential=radii)


def rows_in(folder, n=2000, mode="sequential", stopping=NEVER, image=IMAGES.__getitem__, earlier=None):
    """The rows, in the order in which they were written, and their identity."""
    sampler = sampler_of(HalfSpaces([1.0, -0.5, 0.3, 0.2], -0.4), IMAGES[0])
    procedure = PROCEDURES[mode](SIGMA, settings(mode, n))
    identity = procedure.facts | {"seed": 5, "sigma": SIGMA}
    rows = PartialTable(folder, identity, procedure.columns)
    before = earlier_rows(folder.parent, identity) if earlier is None else earlier
    certify_missing(procedure, sampler, rows, range(12), image=image, labels=LABELS, earlier=before, stopping=stopping)
    rows.close()
    return (folder / "rows-0.tsv").read_text().splitlines(), identity


@pytest.mark.parametrize("mode", ["sequential", "reference"])
def test_rows_are_those_of_an_uninterrupted_run_after_every_stop(tmp_path, mode):
    whole, _ = rows_in(tmp_path / "whole", mode=mode, earlier={})
    assert len(whole) == 12
    for number in range(1, 13):
        rows, _ = rows_in(tmp_path / "stopped", mode=mode, earlier={}, stopping=Stopping(time.monotonic() - 1))
        assert rows == whole[:number], "each start gets one image further"


def test_a_smaller_n_is_topped_up_to_the_rows_of_one_long_run(tmp_path):
    rows_in(tmp_path / "tables/less", n=1000)
    topped_up, identity = rows_in(tmp_path / "tables/more", n=3000)
    assert topped_up == rows_in(tmp_path / "whole/more", n=3000)[0]
    earlier = earlier_rows(tmp_path / "tables", identity)
    assert sorted(earlier) == list(range(12))


@pytest.mark.parametrize(
    "spoilt", ["no identity yet", "no JSON", "no object", "no n", "no text", "a file", "n is text"]
)
def test_a_folder_beside_it_that_cannot_be_read_stops_nothing(tmp_path, capsys, spoilt):
    tables = tmp_path / "tables"
    _, identity = rows_in(tables / "less", n=1000)
    other = tables / "aaa"
    if spoilt == "a file":
        other.write_text("")
    else:
        other.mkdir()
        contents = {"no JSON": b"{", "no object": b"[1]", "no n": b"{}", "no text": b"\xff", "n is text": b'{"n": "1"}'}
        if spoilt in contents:
            (other / table.IDENTITY).write_bytes(contents[spoilt])
    earlier = earlier_rows(tables, identity | {"n": 3000})
    assert sorted(earlier) == list(range(12))
    said = capsys.readouterr().err
    assert ("aaa" in said) == (spoilt in ("no JSON", "no object", "no text"))


def test_earlier_rows_that_cannot_be_read_stop_nothing(tmp_path, capsys):
    _, identity = rows_in(tmp_path / "tables/less", n=1000)
    path = tmp_path / "tables/less/rows-0.tsv"
    path.write_bytes(path.read_bytes().replace(b"accept", b"\xff\xfe", 1))
    assert earlier_rows(tmp_path / "tables", identity | {"n": 3000}) == {}
    assert "no earlier rows are taken from" in capsys.readouterr().err
