"""Images that are decoded when they are needed, for data that does not fit in memory.

`open_split` gives a prepared split, whatever its form: arrays (`Split`) or files (`FileSplit`). Both answer

    len(split)          how many images
    split.labels        int64 (N,)
    split.image(i)      uint8 or uint16 (C, H, W): the image that is certified
    split.sha256        identity of pixels or files, and labels

so certification needs nothing else. Training reads rows of `Split.images`, and files through a `DataLoader` over a
`TrainingView`, one per epoch.

Torch knows little of uint16: tensors of it are stored, indexed and converted, and nothing else.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from components.data import image_files
from components.data.image_files import USUAL_COVER, USUAL_SIZE, ImageFileError
from components.data.manifest import Manifest
from components.data.prepared import Split, load_split_or_manifest
from components.tools.hashing import derive_seed


def as_tensor(pixels: np.ndarray) -> Tensor:
    """The array's own memory or file as a tensor, which must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels)


def to_unit_interval(pixels: Tensor, max_value: int) -> Tensor:
    """Integer pixels as float32 in [0, 1]: `max_value` stands for 1.0."""
    return pixels.float() / max_value


def grid_of(max_value: int) -> int:
    """Steps from 0 to 1 of the grid of certified images: as fine as that of 8 bits, and all pixels lie on it.

    65535 for 16 bits.
    """
    return max_value * -(-255 // max_value)


def on_grid(pixels: Tensor, max_value: int, grid: int) -> Tensor:
    """Integer pixels in steps of the grid: int32.

    Raises:
        ValueError: they do not lie on it.
    """
    if grid % max_value:
        raise ValueError(f"pixels up to {max_value} do not lie on a grid of {grid} steps: train the weights again")
    return pixels.int() * (grid // max_value)


CROP, _ = USUAL_SIZE
AREA = (0.08, 1.0)
"""Share of the image that a random crop covers."""
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10


@dataclass(frozen=True)
class FileSplit:
    """RGB image files. Each time one is read, its bytes are checked against the manifest."""

    manifest: Manifest
    root: Path
    """The folder that the manifest's paths are relative to."""

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def labels(self) -> np.ndarray:
        return self.manifest.labels

    @property
    def sha256(self) -> str:
        """Identity of files and labels; what is decoded also depends on `image_files.decoder_version()`."""
        return self.manifest.sha256

    def image(self, i: int) -> np.ndarray:
        """The test view, uint8 (3, 224, 224): shorter side resized to 256, central square of 224.

        Raises:
            ValueError: naming the file that is missing, unreadable or not the one that was prepared.
        """
        return image_files.to_array(image_files.resize_and_crop(self._decode(i), USUAL_COVER, USUAL_SIZE))

    def training_image(self, i: int, *, seed: int, epoch: int) -> np.ndarray:
        """A training view, uint8 (3, 224, 224): random resized crop and flip, a function of (seed, epoch, i) alone.

        Raises:
            ValueError: as `image`.
        """
        from PIL import Image

        image = self._decode(i)
        rng = np.random.default_rng(derive_seed(seed, "view", epoch, i))
        left, top, width, height = draw_crop(rng, *image.size)
        image = image.crop((left, top, left + width, top + height)).resize((CROP, CROP), Image.Resampling.BILINEAR)
        pixels = image_files.to_array(image)
        return np.ascontiguousarray(pixels[:, :, ::-1]) if rng.random() < 0.5 else pixels

    def _decode(self, i: int) -> Any:
        path, remedy = self.root / self.manifest.paths[i], "put it back, or run the prepare stage again"
        try:
            data = image_files.read_bytes(path)
            if hashlib.sha256(data).hexdigest() != self.manifest.hashes[i]:
                raise ImageFileError("not the file that was prepared")
            return image_files.decode(data, channels=3)
        except ImageFileError as error:
            raise ValueError(f"{path}: {error}: {remedy}") from None


def open_split(folder: Path, root: Path | None = None) -> Split | FileSplit:
    """A prepared split.

    Args:
        root: where the image files of a manifest lie; arrays need none.

    Raises:
        ValueError: when what is there cannot be read, or a manifest is opened without `root`.
    """
    split = load_split_or_manifest(folder)
    if isinstance(split, Split):
        return split
    if root is None:
        raise ValueError(f"{folder} lists image files, but prepare.root is null: set it to their folder")
    return FileSplit(split, root)


@dataclass(frozen=True)
class TrainingView(Dataset[tuple[Tensor, int]]):
    """The images and labels of one epoch, by index; they do not depend on the worker or the order of access."""

    split: FileSplit
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """uint8 (3, 224, 224) and its label."""
        image = self.split.training_image(i, seed=self.seed, epoch=self.epoch)
        return torch.from_numpy(image), int(self.split.labels[i])


def draw_crop(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random crop (Szegedy et al. 2015, as torchvision's RandomResizedCrop draws it).

    Area uniform in 8 to 100 % of the image, logarithm of the aspect uniform between 3/4 and 4/3. After ten crops that
    do not fit, the largest central crop whose aspect is in range.
    """
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*AREA)
        aspect = np.exp(rng.uniform(*np.log(ASPECT)))
        crop_width, crop_height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(rng.integers(width - crop_width + 1))
            return left, int(rng.integers(height - crop_height + 1)), crop_width, crop_height
    crop_width = min(width, round(height * ASPECT[1]))
    crop_height = min(height, round(width / ASPECT[0]))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height
