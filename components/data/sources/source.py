"""The two forms in which a source gives its images: arrays and files."""

from dataclasses import dataclass

import numpy as np

from components.data.manifest import Manifest
from components.data.picture_forms import Form


@dataclass(frozen=True)
class Source:
    """Images in memory as the source has them, before preparation."""

    images: np.ndarray
    """(N, C, H, W), any numeric type, whole numbers from 0 to `max_value`: all images, or those for training."""
    labels: np.ndarray
    """(N,) indices into `classes`."""
    classes: list[str]
    max_value: int
    """The pixel value that stands for 1.0."""
    origin: str
    """Where the images come from, for the dataset's identity: the same on every machine, so no path."""
    paths: list[str] | None = None
    """What people call the images: their files, relative to the source's folder, with forward slashes, or their numbers
    in a source that is to be split; None where a split's own numbers say it."""
    test: tuple[np.ndarray, np.ndarray] | None = None
    """Images and labels of the source's own test split, if it has one."""
    test_paths: list[str] | None = None
    val: tuple[np.ndarray, np.ndarray] | None = None
    """Images and labels of the source's own validation split, if it has one: for choosing, never for certificates."""
    val_paths: list[str] | None = None
    form: Form | None = None
    """What pictures were brought to; None where the images were no pictures."""
    mean: list[float] | None = None
    std: list[float] | None = None
    """Per-channel normalisation in units of [0, 1], done inside the network; None for none."""


@dataclass(frozen=True)
class FileSource:
    """Images too large for memory, as files that are decoded on the fly."""

    train: Manifest
    test: Manifest
    classes: list[str]
    form: Form
    """What certification brings each file to."""
    origin: str
    mean: list[float]
    std: list[float]
