"""Which model is champion and which is best, answered from the tags of the registered versions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from components.params import level_key
from components.registry.aliases import CHAMPION, NONE, STATE, Aliases, Move
from components.registry.connection import quoted

ACCURACY = "certified_accuracy_at_"
"""Prefix of a version's tags that hold certified accuracy; the rest of their name is the radius."""


@dataclass(frozen=True)
class VersionFacts:
    """The facts in the tags of a registered version. `None` where a tag is missing (preset radii have no ACR; others
    may have made the version)."""

    name: str
    version: str
    sigma: float | None
    champion: bool
    state: str
    bound: str | None
    """Of the table, by which all other values are."""
    arithmetic: str | None
    acr: float | None
    acr_one_class: float | None
    acr_two_class: float | None
    clean_accuracy: float | None
    certified_accuracy: dict[float, float]
    """By radius."""
    failure_prob: float | None
    n: int | None
    data_sha256: str | None
    git_commit: str | None


def model_name(experiment: str, sigma: float) -> str:
    """The registered model of a noise level."""
    return f"{experiment}-sigma-{level_key(sigma)}"


def sigma_of(name: str, experiment: str) -> float | None:
    """The noise level of a registered model; None for one that is not the experiment's, whatever its name begins
    with."""
    try:
        sigma = float(name.removeprefix(f"{experiment}-sigma-"))
    except ValueError:
        return None
    return sigma if math.isfinite(sigma) and model_name(experiment, sigma) == name else None


def champion(client: MlflowClient, name: str) -> VersionFacts:
    """The champion of one registered model.

    Raises:
        ValueError: there is no such model, or it has no champion.
    """
    aliases = Aliases(client, name, Path())
    number = aliases.aliases().get(CHAMPION)
    if number is None:
        raise ValueError(f"{name} has no champion yet: run `python -m pipelines.promote`")
    return described(aliases.version(number), number)


def best(
    client: MlflowClient, experiment: str, radius: float, at_least: float, *, champions_only: bool = True
) -> VersionFacts:
    """The model with the best clean accuracy among those with a certified accuracy of `at_least` at `radius`.

    Args:
        experiment: all its noise levels are searched.
        radius: a radius at which certified accuracy was reported.
        champions_only: search champions only, instead of all registered versions.

    Raises:
        ValueError: no model reports on the radius, or none is good enough; says how good the best one is.
    """
    known = registered(client, experiment)
    candidates = [model for model in known if model.champion or not champions_only]
    reported = [model for model in candidates if radius in model.certified_accuracy]
    if not reported:
        radii = sorted({r for model in candidates for r in model.certified_accuracy})
        raise ValueError(
            f"radius is {radius:g}: no {'champion' if champions_only else 'model'} of {experiment} reports on it, only "
            f"on {', '.join(f'{r:g}' for r in radii) or 'nothing'}: name one of these, or add it to evaluate.radii"
        )
    enough = [model for model in reported if model.certified_accuracy[radius] >= at_least]
    if not enough:
        highest = max(reported, key=lambda model: model.certified_accuracy[radius])
        raise ValueError(
            f"certified accuracy at radius {radius:g} is at most {highest.certified_accuracy[radius]:.3f} "
            f"({highest.name} v{highest.version}), and {at_least:g} is asked for: ask for less"
        )
    return max(enough, key=lambda model: (model.clean_accuracy or 0.0, model.certified_accuracy[radius]))


def registered(client: MlflowClient, experiment: str) -> list[VersionFacts]:
    """All versions of all noise levels."""
    found = []
    for name in names(client, experiment):
        aliases = Aliases(client, name, Path())
        number = aliases.aliases().get(CHAMPION)
        found += [described(version, number) for version in aliases.versions()]
    return found


def names(client: MlflowClient, experiment: str) -> list[str]:
    """The registered models of an experiment, one per noise level, in the order of sigma.

    Raises:
        ValueError: there is none.
    """
    levels: dict[str, float] = {}
    token = None
    while True:
        # in LIKE, _ and % match anything, so each result is checked again
        pattern = quoted(f"{experiment}-sigma-%")
        page = client.search_registered_models(f"name LIKE {pattern}", max_results=1000, page_token=token)
        for model in page:
            if (sigma := sigma_of(model.name, experiment)) is not None:
                levels[model.name] = sigma
        token = page.token
        if not token:
            break
    if not levels:
        raise ValueError(f"there is no registered model {experiment}-sigma-...: run the register stage")
    return sorted(levels, key=lambda name: levels[name])


def history(client: MlflowClient, name: str) -> list[Move]:
    """All changes of champion of one registered model, the first one first."""
    return Aliases(client, name, Path()).history()


def described(version: ModelVersion, champion_number: str | None) -> VersionFacts:
    """A version's tags as typed facts.

    Raises:
        ValueError: a tag that must be a number is not one.
    """
    tags: dict[str, str] = version.tags

    def value(tag: str, kind: Callable[[str], Any]) -> Any:
        try:
            return kind(tags[tag]) if tag in tags else None
        except ValueError:
            what = f"the tag {tag} of {version.name} v{version.version}"
            raise ValueError(f"{what} is {tags[tag]!r}: must be a number, remove it in MLflow") from None

    def radius(tag: str) -> float:
        try:
            return float(tag.removeprefix(ACCURACY))
        except ValueError:
            raise ValueError(f"{version.name} v{version.version} has the tag {tag}: must end in a radius") from None

    accuracy = {radius(tag): value(tag, float) for tag in tags if tag.startswith(ACCURACY)}
    clean = value("clean_accuracy", float)
    certified = "failure_prob" in tags  # versions of before that were do not say by which bound, in which arithmetic
    return VersionFacts(
        name=version.name,
        version=str(version.version),
        sigma=value("sigma", float),
        champion=str(version.version) == champion_number,
        state=tags.get(STATE, NONE),
        bound=tags.get("bound", "one_class") if certified else None,
        arithmetic=tags.get("arithmetic", "float") if certified else None,
        acr=value("acr", float),
        acr_one_class=value("acr_one_class", float),
        acr_two_class=value("acr_two_class", float),
        clean_accuracy=accuracy.get(0.0) if clean is None else clean,
        certified_accuracy=dict(sorted(accuracy.items())),
        failure_prob=value("failure_prob", float),
        n=value("n", int),
        data_sha256=value("data_sha256", str),
        git_commit=value("git_commit", str),
    )
