"""Pixels as networks take them."""

from torch import Tensor


def to_unit_interval(pixels: Tensor, max_value: int) -> Tensor:
    """Integer pixels as float32 in [0, 1]: `max_value` stands for 1.0."""
    return pixels.float() / max_value
