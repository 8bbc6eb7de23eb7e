"""Checkpoints of a training, written to a temporary name and moved into place: a killed run leaves no torn one."""

import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

KEEP = 2


def save(folder: Path, epoch: int, state: dict[str, Any]) -> None:
    """Write the state after `epoch` finished epochs and drop all but the last few."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{epoch:05d}.pt"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    for old in sorted(folder.glob("epoch-*.pt"))[:-KEEP]:
        old.unlink(missing_ok=True)


def load_newest(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The newest state that can be read, or None; what cannot be read is named on stderr and skipped."""
    for path in sorted(folder.glob("epoch-*.pt"), reverse=True):
        try:
            return torch.load(path, map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"skipping the checkpoint {path}: {reason}", file=sys.stderr)
    return None
