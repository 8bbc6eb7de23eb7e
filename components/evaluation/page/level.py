"""What the page is made of: one noise level's files, as values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from components.certification.table import ABSTAIN
from components.evaluation.metrics import certified_radii, is_correct
from components.evaluation.rebound import counts_of


@dataclass(frozen=True)
class Previous:
    """What the last commit says of a noise level."""

    commit: str
    curve: pd.DataFrame
    """Its radius and certified_accuracy."""
    said: str
    """Its ACR beside the present one, and on what else it rests; empty where there is nothing to say."""


@dataclass(frozen=True)
class Level:
    """One noise level of a run."""

    key: str
    """Sigma as it is written in params.yaml."""
    table: pd.DataFrame
    identity: dict[str, Any]
    """What the table is a function of."""
    summary: dict[str, Any]
    """Its metrics; see `components.evaluation.metrics.summarize`."""
    training: dict[str, Any] = field(default_factory=dict)
    """The parameters of the training, as the card of the weights has them."""
    history: pd.DataFrame | None = None
    """One row per epoch; None or empty where the weights were not trained here."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Commit, hardware and versions of the training."""
    attacks: pd.DataFrame | None = None
    """Certified and attacked radii of some images."""
    published_acr: float | None = None
    """The published ACR of this data set, method and sigma, by the one-class bound."""
    published_curve: pd.DataFrame | None = None
    """Published points: radius, certified_accuracy."""
    previous: Previous | None = None
    """The last commit's, where it is comparable and differs."""

    @property
    def sigma(self) -> float:
        return float(self.identity["sigma"])

    @property
    def epochs(self) -> pd.DataFrame:
        """The history, empty where there is none."""
        return pd.DataFrame() if self.history is None else self.history


def class_name(classes: Sequence[str], label: int) -> str:
    """The name of a class for people; of an answer that is withheld, `abstains`."""
    if label == ABSTAIN:
        return "abstains"
    return str(classes[label]) if label < len(classes) else str(label)


def hits(row: dict[Any, Any]) -> dict[str, int] | None:
    """How the n samples of a row fell: `n`, `own` of the class that was selected, `rival` its strongest rival and
    `rivals` the hits of that one, `lost`; None for a table in the field's form, which holds no counts."""
    if "counts" not in row:
        return None
    counts, selected, n = counts_of(row), int(row["selected"]), int(row["n"])
    others = [(count, label) for label, count in enumerate(counts) if label != selected]
    rivals, rival = max(others, default=(0, ABSTAIN), key=lambda other: other[0])
    return {"n": n, "own": counts[selected], "rival": rival, "rivals": rivals, "lost": n - sum(counts)}


def groups_of(table: pd.DataFrame, most: int) -> dict[str, pd.DataFrame]:
    """Rows to look at, up to `most` of each kind: strongest, weakest, abstained, wrong.

    Among equal radii the classes take turns. The wrongly certified ones begin with the largest radius, those without an
    answer with the most likely class of all.
    """
    right, withheld = is_correct(table), table["predict"] == ABSTAIN
    turn = table.groupby("label").cumcount()
    certified = table.assign(turn=turn)[right & (certified_radii(table) > 0)]
    strongest = certified.sort_values(["radius", "turn", "idx"], ascending=[False, True, True]).head(most)
    weakest = certified.drop(strongest.index).sort_values(["radius", "idx"])
    by_chance = "p_lower" if "p_lower" in table else "radius"
    return {
        "strongest": strongest,
        "weakest": weakest.head(most),
        "abstained": table[withheld].sort_values([by_chance, "idx"], ascending=[False, True]).head(most),
        "wrong": table[~right & ~withheld].sort_values(["radius", "idx"], ascending=[False, True]).head(most),
    }
