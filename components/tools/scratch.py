"""Arrays that lie on disk while they are made: images may be more than fits into memory."""

import math
import os
import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

PIECE = 1 << 22
"""Bytes of an array that are in hand at once."""


def scratch_array(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array of zeros in an unnamed file of the temporary folder; the file is gone once the array is.

    Raises:
        ValueError: the folder has too little space.
    """
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if not needed:
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # a full disk would otherwise end the process at some later write
                os.posix_fallocate(file.fileno(), 0, needed)
            return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
    except OSError as error:
        raise ValueError(
            f"images of {-(-needed >> 20)} MiB cannot be kept in {tempfile.gettempdir()} while they are prepared "
            f"({error.strerror}): set TMPDIR to a folder with more space, or lower prepare.image_size"
        ) from None


def pieces(array: np.ndarray) -> Iterator[slice]:
    """Ranges of rows that together are the array, each of `PIECE` bytes at most, or of one row."""
    rows = max(1, PIECE * len(array) // max(1, array.nbytes))
    return (slice(start, min(start + rows, len(array))) for start in range(0, len(array), rows))
