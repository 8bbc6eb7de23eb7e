"""Look up registered models: the champion of each noise level, the best one for a required radius, the history."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from components.certification.table import display_radius
from components.evaluation.report import text_table
from components.params import Params
from components.registry import versions, wait_briefly
from components.registry.connection import in_one_line
from components.registry.tracking import Tracking
from components.registry.versions import VersionFacts
from pipelines import artifacts
from pipelines.cli import guard, load_params


def champion(params: Params, sigma: float | None) -> None:
    client = Tracking(artifacts.tracking_store(), params.register.name).client
    for name in named(client, params, sigma):
        try:
            print(describe(versions.champion(client, name)))
        except ValueError as error:
            if sigma is not None:
                raise
            print(f"{error}\n")


def best(params: Params, radius: float, at_least: float, all_versions: bool) -> None:
    client = Tracking(artifacts.tracking_store(), params.register.name).client
    print(describe(versions.best(client, params.register.name, radius, at_least, champions_only=not all_versions)))


def history(params: Params, sigma: float | None) -> None:
    client = Tracking(artifacts.tracking_store(), params.register.name).client
    rows = [
        [move.at, name, f"v{move.champion}", f"v{move.left}" if move.left else "-", f"{move.how} by {move.by}"]
        for name in named(client, params, sigma)
        for move in versions.history(client, name)
    ]
    print(text_table(["when (UTC)", "model", "champion", "before", "how"], rows) if rows else "no champion yet")


def named(client: Any, params: Params, sigma: float | None) -> list[str]:
    """The registered model of one noise level, or of all."""
    if sigma is None:
        return versions.names(client, params.register.name)
    return [versions.model_name(params.register.name, sigma)]


def describe(model: VersionFacts) -> str:
    """One fact per line. Radii are rounded down."""
    accuracy = "  ".join(f"r={radius:g}: {value:.3f}" for radius, value in model.certified_accuracy.items())
    role = " (champion)" if model.champion else ""
    facts = {field.name: getattr(model, field.name) for field in fields(model) if field.name not in ("name", "version")}
    facts["certified_accuracy"] = accuracy
    if model.bound is not None:  # else nothing says which bound the ACR is by
        facts |= {"acr": None, f"acr_{model.bound}": model.acr}
    acrs = {name: facts[name] for name in ("acr", "acr_one_class", "acr_two_class")}
    facts |= {name: None if acr is None else display_radius(acr) for name, acr in acrs.items()}
    facts |= {"clean_accuracy": None if model.clean_accuracy is None else f"{model.clean_accuracy:.3f}"}
    lines = [f"  {name:<19} {value}" for name, value in facts.items() if value is not None and name != "champion"]
    return f"models:/{model.name}/{model.version}{role}\n" + "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipelines.lookup", description=__doc__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for action, help_text in (
        (champion, "the champion: ACR by each bound, certified accuracy, failure_prob, n, hash of the data, commit"),
        (best, "the model with the best clean accuracy among those certified well enough at a radius"),
        (history, "every change of champion: when, from which version to which, and why"),
    ):
        command = commands.add_parser(action.__name__, help=help_text, description=help_text)
        command.set_defaults(action=action)
        if action is best:
            command.add_argument("--radius", type=float, required=True, help="one of evaluate.radii")
            command.add_argument(
                "--at-least", type=float, required=True, metavar="SHARE", help="required certified accuracy"
            )
            command.add_argument("--all-versions", action="store_true", help="search all versions, not only champions")
        else:
            command.add_argument("--sigma", type=float, help="the noise level (default: all)")
    return parser.parse_args()


def main() -> None:
    wait_briefly()
    options = vars(arguments())
    action: Callable[..., None] = options.pop("action")
    sys.exit(guard(in_one_line("try again")(action), load_params(), **options))


if __name__ == "__main__":
    main()
