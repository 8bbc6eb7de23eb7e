"""Files at an address: fsspec's own store in memory, which writes whole objects as S3 does."""

import time

import fsspec
import pytest

from components.tools.remote import Remote, is_address


@pytest.fixture
def address():
    yield "memory://fleet/rows"
    fsspec.filesystem("memory").rm("/fleet", recursive=True)


def test_what_is_put_is_fetched_up_to_its_last_whole_line(address, tmp_path):
    (tmp_path / "a.tsv").write_text("1\n2\nhalf a li")
    Remote(address).put(tmp_path / "a.tsv")
    Remote(address).fetch(tmp_path / "there")
    assert (tmp_path / "there/a.tsv").read_text() == "1\n2\n"


def test_what_is_longer_here_stays(address, tmp_path):
    (tmp_path / "a.tsv").write_text("1\n")
    Remote(address).put(tmp_path / "a.tsv")
    (tmp_path / "a.tsv").write_text("1\n2\n")
    Remote(address).fetch(tmp_path)
    assert (tmp_path / "a.tsv").read_text() == "1\n2\n"


def test_a_growing_file_is_kept_up_and_whole_at_the_end(address, tmp_path):
    path, seen = tmp_path / "a.tsv", fsspec.filesystem("memory")
    path.write_text("")
    with Remote(address).kept_up(path, seconds=0.01):
        path.write_text("1\n")
        until = time.monotonic() + 30
        while not seen.cat_file("/fleet/rows/a.tsv"):
            assert time.monotonic() < until, "it was not copied meanwhile"
        path.write_text("1\n2\n")
    assert seen.cat_file("/fleet/rows/a.tsv") == b"1\n2\n"


def test_an_address_that_nothing_can_use_is_refused():
    assert is_address("s3://bucket/x")
    assert not is_address("/mnt/rows")
    with pytest.raises(ValueError, match="nowhere://x cannot be used: Protocol not known: nowhere"):
        Remote("nowhere://x")


def test_a_store_that_fails_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectionError, match=rf"local://{tmp_path}/file cannot be reached: \w*Error: "):
        Remote(f"local://{tmp_path}/file").put(tmp_path / "file")
