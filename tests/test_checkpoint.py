"""Checkpoints: the newest that can be read counts, few are kept, none is torn."""

import pytest
import torch

from components.training import checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Checkpoints after epochs 1 to 12."""
    for epoch in range(1, 13):
        checkpoint.save(tmp_path, epoch, {"epoch": epoch, "weights": torch.full((1000,), float(epoch))})
    return tmp_path


def test_the_newest_is_loaded_whole(folder):
    state = checkpoint.load_newest(folder, CPU)
    assert state["epoch"] == 12
    assert torch.equal(state["weights"], torch.full((1000,), 12.0))


def test_only_the_last_few_are_kept_and_nothing_temporary(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-00011.pt", "epoch-00012.pt"]
    assert checkpoint.KEEP == 2


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.95], ids=["empty", "a few bytes", "half", "nearly whole"])
def test_a_torn_checkpoint_is_skipped_and_named(folder, capsys, share):
    newest = folder / "epoch-00012.pt"
    raw = newest.read_bytes()
    newest.write_bytes(raw[: int(share * len(raw))])
    assert checkpoint.load_newest(folder, CPU)["epoch"] == 11
    assert f"skipping the checkpoint {newest}" in capsys.readouterr().err


@pytest.mark.parametrize("content", [bytes(5000), b"not a checkpoint at all\n"], ids=["zeros", "text"])
def test_a_file_that_is_no_checkpoint_is_skipped_and_named(folder, capsys, content):
    (folder / "epoch-00012.pt").write_bytes(content)
    assert checkpoint.load_newest(folder, CPU)["epoch"] == 11
    assert "epoch-00012.pt" in capsys.readouterr().err


def test_there_is_none_where_nothing_can_be_read(tmp_path, capsys):
    assert checkpoint.load_newest(tmp_path / "missing", CPU) is None
    (tmp_path / "epoch-00001.pt").write_bytes(b"")
    assert checkpoint.load_newest(tmp_path, CPU) is None
    assert "epoch-00001.pt" in capsys.readouterr().err


def test_a_write_that_is_cut_short_leaves_the_older_checkpoints(folder, monkeypatch):
    def cut_short(state, file):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(folder, 13, {"epoch": 13})
    assert checkpoint.load_newest(folder, CPU)["epoch"] == 12
