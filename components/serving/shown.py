"""What the page shows of a certificate: the image as the model has it, noisy copies of it, the votes.

The copies are the first of those that were counted: the same seed, image and samples.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from components.certification.classifier import N0, SmoothedClassifier, on_grid
from components.certification.noise import noisy_copies
from components.certification.sampling import Segment
from components.serving.pictures import data_url

MOST = 12
"""Noisy copies that a request may ask to see."""


def shown(classifier: SmoothedClassifier, images: Tensor, answers: pd.DataFrame, copies: int) -> dict[str, Any]:
    """Args:
    images: float32 (1, C, H, W) with one to four channels, as they were certified.
    answers: what `certify` gave for them.

    Returns:
        image (a data URL), copies (image and class of each) and votes (of the n samples, by class; what they lack
        of n was lost).
    """
    sampler, classes = classifier.sampler, classifier.card.classes
    (image,), _ = on_grid(images, sampler.grid)
    image, seed = image.to(sampler.device), answers.attrs["seed"]
    noisy, _ = noisy_copies(image, sampler.normal, seed=seed, index=0, start=N0, stop=N0 + copies)
    predictions: list[int] = []
    while len(predictions) < copies:
        start = N0 + len(predictions)
        (block,) = sampler.shared_predictions([Segment(image, 0, start, start + sampler.block)], seed)
        predictions += block.tolist()
    return {
        "image": data_url(eight_bits(images[0])),
        "copies": [
            {"image": data_url(eight_bits(copy)), "class_name": classes[predicted] if predicted >= 0 else ""}
            for copy, predicted in zip(noisy, predictions, strict=False)
        ],
        "votes": [
            {"class_name": name, "count": count}
            for name, count in zip(classes, answers.attrs["counts"][0], strict=True)
        ],
    }


def eight_bits(image: Tensor) -> np.ndarray:
    """For the eye: values in [0, 1] as uint8; what noise carries beyond is cut off."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
