"""The procedures by name: from the settings of the certify stage to what certifies an image and writes its row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.certification import preset_radii, table
from components.certification.cohen import certifying
from components.certification.preset_radii import deciding
from components.certification.table import Counting, display_radius
from components.params import Certify


@dataclass(frozen=True)
class Procedure:
    """How an image is certified, and what its row then is a function of."""

    start: Callable[[int, str | None], Counting[Any]]
    """The counting for an image by its number. Where there is a row that the same procedure gave it with fewer samples,
    the counting goes on after the samples of this row."""
    format_row: Callable[[int, int, Any], str]
    columns: list[str]
    facts: dict[str, Any]
    watched_radius: float
    """At which progress shows certified accuracy."""


def reference(sigma: float, settings: Certify) -> Procedure:
    arguments: dict[str, Any] = {"n0": settings.n0, "n": settings.n, "failure_prob": settings.failure_prob}
    arguments |= {"bound": settings.bound, "early_abstention": settings.early_abstention}

    def start(index: int, earlier: str | None) -> Counting[Any]:
        assert earlier is None, "a bound of Clopper-Pearson is for a size that was fixed beforehand"
        return certifying(sigma, **arguments)

    return Procedure(start, table.format_row, table.COLUMNS, {"mode": "reference", **arguments}, sigma)


def preset(sigma: float, settings: Certify) -> Procedure:
    preset_radii.check_size(settings.n)
    most: Any = {"max_n": settings.n, "failure_prob": settings.failure_prob, "sigma": sigma, "bound": settings.bound}
    radii = preset_radii.certifiable(settings.sequential.radii, **most)
    if left_out := [radius for radius in settings.sequential.radii if radius not in radii]:
        largest = display_radius(preset_radii.largest_preset_radius(**most))
        what = f"{settings.n:,} samples certify at most {largest} at sigma {sigma}"
        if not radii:
            raise ValueError(f"certify.sequential.radii is {left_out}: {what}; name smaller ones or raise certify.n")
        print(f"left out of the radii: {', '.join(map(str, left_out))} ({what})")
    shared: dict[str, Any] = {"n0": settings.n0, "failure_prob": settings.failure_prob}
    shared |= {"bound": settings.bound, "reject_prob": settings.sequential.reject_prob}

    def start(index: int, earlier: str | None) -> Counting[Any]:
        before = preset_radii.parse_row(earlier, radii) if earlier else None
        return deciding(sigma, radii, **shared, max_n=settings.n, index=index, earlier=before)

    facts = {"mode": "sequential", **shared, "n": settings.n, "radii": radii}
    return Procedure(start, preset_radii.format_row, preset_radii.COLUMNS, facts, radii[0])


PROCEDURES = {"reference": reference, "sequential": preset}
