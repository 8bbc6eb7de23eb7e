"""Where images come from: one function per source, each giving a `Source`."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Source:
    """Images as the source has them, before preparation."""

    images: np.ndarray
    """(N, C, H, W), any numeric type, whole numbers from 0 to `max_value`."""
    labels: np.ndarray
    """(N,) indices into `classes`."""
    classes: list[str]
    max_value: int
    """The pixel value that stands for 1.0."""
    origin: str
    """Where the images come from, for the dataset's identity."""


def digits() -> Source:
    """scikit-learn's handwritten digits (UCI, 1797 grey images of 8x8, values 0 to 16): shipped inside the library."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Source(
        images=bunch.images[:, None],
        labels=bunch.target,
        classes=[str(name) for name in bunch.target_names],
        max_value=16,
        origin="scikit-learn load_digits (UCI optical recognition of handwritten digits, test part)",
    )


SOURCES = {"digits": digits}
