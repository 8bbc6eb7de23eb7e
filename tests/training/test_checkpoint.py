"""Checkpoints: the newest that can be read counts, few are kept, none is torn."""

from pathlib import Path

import pytest
import torch

from components.training import checkpoint

CPU = torch.device("cpu")
KEY = "0123456789abcdef" * 4
OLDER, NEWEST = "epoch-00012-step-0000000.pt", "epoch-00012-step-0000005.pt"


@pytest.fixture
def folder(tmp_path):
    """Checkpoints after epochs 1 to 12 and after the fifth step of the next."""
    for epoch in range(1, 13):
        checkpoint.save(tmp_path, KEY, epoch, 0, {"at": (epoch, 0), "weights": torch.full((1000,), float(epoch))})
    checkpoint.save(tmp_path, KEY, 12, 5, {"at": (12, 5), "weights": torch.full((1000,), 12.5)})
    return tmp_path


def test_the_newest_is_loaded_whole(folder):
    state = checkpoint.load_newest(folder, KEY, CPU)
    assert state["at"] == (12, 5)
    assert torch.equal(state["weights"], torch.full((1000,), 12.5))


def test_only_the_last_few_are_kept_and_nothing_temporary(folder):
    assert sorted(path.name for path in folder.iterdir()) == [OLDER, NEWEST]
    assert checkpoint.KEEP == 2
    assert checkpoint.newest(folder) == folder / NEWEST


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.95], ids=["empty", "a few bytes", "half", "nearly whole"])
def test_a_torn_checkpoint_is_skipped_and_named(folder, capsys, share):
    newest = folder / NEWEST
    raw = newest.read_bytes()
    newest.write_bytes(raw[: int(share * len(raw))])
    assert checkpoint.load_newest(folder, KEY, CPU)["at"] == (12, 0)
    assert f"skipping the checkpoint {newest}: it is torn or was changed" in capsys.readouterr().err


def test_a_checkpoint_with_one_bit_turned_is_skipped_and_named(folder, capsys):
    raw = bytearray((folder / NEWEST).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / NEWEST).write_bytes(raw)
    assert checkpoint.load_newest(folder, KEY, CPU)["at"] == (12, 0)
    assert "it is torn or was changed" in capsys.readouterr().err


def test_a_checkpoint_of_another_training_is_skipped_and_named(folder, capsys):
    checkpoint.save(folder, "f" * 64, 12, 6, {"at": (12, 6)})
    assert checkpoint.load_newest(folder, KEY, CPU)["at"] == (12, 5)
    said = capsys.readouterr().err
    assert f"step-0000006.pt: it belongs to another training ({'f' * 16}, not {KEY[:16]})" in said


@pytest.mark.parametrize("content", [bytes(5000), b"not a checkpoint at all\n"], ids=["zeros", "text"])
def test_a_file_that_is_no_checkpoint_is_skipped_and_named(folder, capsys, content):
    (folder / NEWEST).write_bytes(content)
    assert checkpoint.load_newest(folder, KEY, CPU)["at"] == (12, 0)
    assert NEWEST in capsys.readouterr().err


def test_there_is_none_where_nothing_can_be_read(tmp_path, capsys):
    assert checkpoint.load_newest(tmp_path / "missing", KEY, CPU) is None
    (tmp_path / OLDER).write_bytes(b"")
    assert checkpoint.load_newest(tmp_path, KEY, CPU, say=False) is None
    assert capsys.readouterr().err == ""
    assert checkpoint.load_newest(tmp_path, KEY, CPU) is None
    assert OLDER in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_one_clear_error_and_leaves_the_older_checkpoints(folder):
    (folder / "unfinished.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"step-0000009\.pt cannot be written \(No space left on device\): make room"):
        checkpoint.save(folder, KEY, 12, 9, {"at": (12, 9)})
    assert sorted(path.name for path in folder.iterdir()) == [OLDER, NEWEST]
    assert checkpoint.load_newest(folder, KEY, CPU)["at"] == (12, 5)


def test_what_a_killed_run_left_half_written_is_overwritten(folder):
    (folder / "unfinished.tmp").write_bytes(b"half of it")
    checkpoint.save(folder, KEY, 12, 9, {"at": (12, 9)})
    assert checkpoint.load_newest(folder, KEY, CPU)["at"] == (12, 9)
    assert not (folder / "unfinished.tmp").exists()
