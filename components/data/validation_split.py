"""The validation split: images for choosing between trainings, on which nothing is ever certified.

Neither a training nor a certificate depends on it, so it is not part of the data set's identity.
"""

import numpy as np

from components.data.prepared import Description, Split, whole_pixels
from components.data.sources.source import FileSource, Source


def validation_split(source: Source | FileSource, description: Description) -> Split:
    """The source's validation split, empty where it has none.

    Raises:
        ValueError: as `prepare`, for its pixels.
    """
    if isinstance(source, FileSource) or source.val is None:
        nothing = np.empty((0, *description.image_shape), dtype=np.uint8)
        return Split(nothing, np.empty(0, dtype=np.int64))
    images, labels = source.val
    pixels = whole_pixels(images, source.max_value, f"{description.source} (val)")
    return Split(pixels, labels.astype(np.int64), source.val_paths)
