"""How messages count: one image, two images."""

from typing import SupportsIndex


def counted(number: SupportsIndex | float, many: str, one: str | None = None, form: str = "") -> str:
    """A number with what it counts.

    Args:
        many: of any number but 1, such as "images" or "rows have".
        one: of 1; by default `many` without its last s.
        form: of the number, as in an f-string.
    """
    noun = many if number != 1 else many.removesuffix("s") if one is None else one
    return f"{number:{form}} {noun}"
