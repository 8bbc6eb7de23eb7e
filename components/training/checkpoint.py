"""Checkpoints of a training, written atomically and tied to the training by its key."""

import hashlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import torch

from components.training.ranks import Ranks
from components.training.state import Training

KEEP = 2
HASH_LENGTH = 64


class CheckpointError(OSError):
    """A checkpoint could not be written; the message says what to do."""


def save(folder: Path, key: str, epoch: int, step: int, state: dict[str, Any]) -> Path:
    """Write the state after `epoch` finished epochs and `step` steps of the next; drop all but the last few.

    The file is the SHA-256 of what follows, then the training's key and the state. It is written to a temporary name
    and moved into place: a killed run leaves no torn checkpoint and at most one temporary file.

    Raises:
        CheckpointError: the disk is full or not writable; older checkpoints stay unchanged.
    """
    buffer = io.BytesIO()
    torch.save({"key": key, "state": state}, buffer)
    content = buffer.getbuffer()
    path, temporary = folder / f"epoch-{epoch:05d}-step-{step:07d}.pt", folder / "unfinished.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        for old in sorted(folder.glob("epoch-*.pt"))[:-KEEP]:
            old.unlink(missing_ok=True)
    except OSError as error:
        if folder.is_dir():
            temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"the checkpoint {path} cannot be written ({error.strerror}): make room and run the same command again "
            "to continue from the previous checkpoint"
        ) from None
    return path


def save_by_main_rank(training: Training, folder: Path, key: str, ranks: Ranks) -> None:
    """Let the main rank write a training's state; if that fails, raise in all ranks.

    Raises:
        FloatingPointError: the state is not finite, so it is not saved.
        OSError: the checkpoint could not be written.
    """
    state, error = training.state(), None
    if ranks.is_main:
        try:
            save(folder, key, training.epoch, training.step, state)
        except OSError as failure:
            error = failure
    if ranks.largest(error is not None):
        raise error or OSError("the main rank could not write the checkpoint")


def load_newest(folder: Path, key: str, device: torch.device, *, say: bool = True) -> dict[str, Any] | None:
    """The newest intact state of the training `key`, or None.

    Every other file is skipped and, if `say`, named on stderr.
    """
    for path in sorted(folder.glob("epoch-*.pt"), reverse=True):
        try:
            return _read(path, key, device)
        except (OSError, ValueError) as error:
            if say:
                print(f"skipping the checkpoint {path}: {error}", file=sys.stderr)
    return None


def newest(folder: Path) -> Path | None:
    """The newest checkpoint file, which `load_newest` tries first."""
    return max(folder.glob("epoch-*.pt"), default=None)


def _read(path: Path, key: str, device: torch.device) -> dict[str, Any]:
    raw = path.read_bytes()
    digest, content = raw[:HASH_LENGTH], raw[HASH_LENGTH:]
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("it is torn or was changed")
    saved = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    if saved["key"] != key:
        raise ValueError(f"it belongs to another training ({saved['key'][:16]}, not {key[:16]})")
    return saved["state"]
