"""Shards: which images each has, who is at work on which, and what is said of those that lack some."""

import argparse
import json

import pytest

from components.certification.shards import WHOLE, Shard, abandoned, folder_of, parse, unfinished
from components.tools.files import free, lock_of

INDICES = range(0, 40, 3)


@pytest.mark.parametrize("of", [1, 2, 5, 14, 20])
def test_shards_have_each_image_once(of):
    shards = [Shard(number, of).images(INDICES) for number in range(1, of + 1)]
    assert sorted(index for shard in shards for index in shard) == list(INDICES)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("shard", [WHOLE, Shard(2, 3)])
def test_the_processes_of_a_shard_have_shards_of_it(shard):
    parts = [shard.divided(rank, 4).images(INDICES) for rank in range(4)]
    assert parts == [shard.images(INDICES)[rank::4] for rank in range(4)]


@pytest.mark.parametrize("text", ["3", "0/8", "9/8", "a/8", "3/", "-1/8", "3/8/2", "1.0/2", "²/8"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a shard i/N, such as 3/8, with i from 1 to N"):
        parse(text)


def test_a_shard_is_read_as_it_is_written():
    assert parse("3/8") == Shard(3, 8)
    assert str(parse("3/8")) == "3/8"


def test_the_shards_that_nobody_is_at_work_on_are_given_one_after_the_other(tmp_path):
    with free(lock_of(Shard(4, 5).file(tmp_path))) as nobody:
        assert nobody
        assert list(abandoned(tmp_path, Shard(3, 5))) == [Shard(5, 5), Shard(1, 5), Shard(2, 5)]
    for other in abandoned(tmp_path, Shard(2, 2)):
        with free(lock_of(other.file(tmp_path))) as nobody:
            assert not nobody, "it is claimed"


def test_the_shards_that_lack_images_are_known_by_the_files_of_the_others(tmp_path):
    assert unfinished(tmp_path, INDICES, []) == []
    for number in (1, 3):
        Shard(number, 4).file(tmp_path).touch()
    WHOLE.file(tmp_path).touch()
    done = [*Shard(1, 4).images(INDICES), *Shard(2, 4).images(INDICES)]
    assert unfinished(tmp_path, INDICES, done) == [Shard(3, 4), Shard(4, 4)]
    assert unfinished(tmp_path, INDICES, INDICES) == []


def test_the_rows_lie_in_a_folder_or_in_that_of_their_key_and_others_are_refused_by_name(tmp_path):
    identity = {"sigma": 0.5, "n": 100}
    with pytest.raises(ValueError, match="has no rows of this certification: name the place that --rows named"):
        folder_of(tmp_path, "key", identity)
    for name, other in {"key": identity, "more": identity | {"n": 200}, "far": identity | {"sigma": 1.0}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "identity.json").write_text(json.dumps(other))
    assert folder_of(tmp_path, "key", identity) == folder_of(tmp_path / "key", "key", identity) == tmp_path / "key"
    with pytest.raises(ValueError, match=r"cannot be merged: n \(200 there, 100 here\)"):
        folder_of(tmp_path, "lost", identity)
