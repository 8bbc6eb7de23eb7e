"""SmoothMix against its rivals.

Runs the stages prepare, train and certify for every method in a temporary workspace, with the recipe of params.yaml:
same network, epochs, seed, batch size and test images. The tables are compared pair by pair, by the recipe's bound.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workspace import read_params, run_in, share_data, write_params
from components import params
from components.certification import table
from components.certification.table import display_radius
from components.evaluation.metrics import summarize
from components.evaluation.paired import paired_acr_difference
from components.evaluation.report import BOUND_NAMES, acr_cell, made_by, text_table
from components.evaluation.verdict import Certified
from components.params import Params, level_key
from components.tools.files import read_json, write_text
from components.training.objectives import OBJECTIVES, PREPARATIONS
from pipelines import artifacts
from pipelines.cli import print_any_text

OURS = "smoothmix"
RATE_FACTORS = {"gaussian": 2.0, "macer": 2.0, "consistency": 2.0}
"""Factor on the recipe's learning rate, for the methods that need another rate; chosen on the digits."""


@dataclass(frozen=True)
class Result:
    """One method at one noise level; the gain is SmoothMix's ACR minus this method's, by `bound`, and None for
    SmoothMix."""

    sigma: float
    method: str
    learning_rate: float
    images: int
    n: int
    failure_prob: float
    bound: str
    arithmetic: str
    acr: float
    acr_standard_error: float
    acr_one_class: float
    acr_two_class: float
    constant_classifier_acr: float
    clean_accuracy: float
    gain: float | None
    gain_low: float | None
    gain_high: float | None


def main() -> None:
    rivals = [method for method in OBJECTIVES if method != OURS]
    usual = [method for method in rivals if method not in PREPARATIONS]  # the others need more than a recipe has
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", nargs="+", choices=rivals, default=usual, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too, as JSON lines")
    options = parser.parse_args()
    recipe = params.load()
    print_any_text()
    tables = certified_tables(read_params(Path()), [OURS, *options.rivals])
    results = [result_of(recipe, tables, method, sigma) for sigma in recipe.sigmas for method in tables]
    if options.json:
        write_text(options.json, "".join(json.dumps(vars(result)) + "\n" for result in results))
    print(f"{recipe.prepare.source}: {results[0].images} test images, n = {recipe.certify.n:,}")
    header = ["sigma", "method", *(f"ACR {name}" for name in BOUND_NAMES.values())]
    header += ["clean acc", "smoothmix's gain", "paired 95 % interval", "floor"]
    print(text_table(header, list(map(table_row, results))))
    print(made_by({level_key(result.sigma): vars(result) for result in results}))


def certified_tables(raw: dict[str, Any], methods: list[str]) -> dict[str, dict[float, Certified]]:
    """The tables of certificates that the stages give for these parameters, by method and sigma."""
    tables: dict[str, dict[float, Certified]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in methods:
            workspace = Path(folder) / method
            train = raw["train"] | {"method": method, "learning_rate": rate_of(method, raw["train"]["learning_rate"])}
            write_params(workspace, raw | {"train": train})
            share_data(workspace, Path(folder) / "prepared", raw)
            tables[method] = {}
            for level in raw["noise_levels"]:
                for stage in ("train", "certify"):
                    run_in(workspace, stage, "--sigma", level)
                rows = table.read(workspace / artifacts.certificates(float(level)))
                identity = read_json(workspace / artifacts.certificates_identity(float(level)), "run it again")
                tables[method][float(level)] = Certified(rows, identity)
    return tables


def rate_of(method: str, rate: float) -> float:
    return RATE_FACTORS.get(method, 1.0) * rate


def result_of(recipe: Params, tables: dict[str, dict[float, Certified]], method: str, sigma: float) -> Result:
    own, ours = tables[method][sigma], tables[OURS][sigma]
    summary = summarize(own.table, [], own.identity)
    gain = paired_acr_difference(own.table, ours.table) if method != OURS else None
    return Result(
        sigma,
        method,
        rate_of(method, recipe.train.learning_rate),
        *(summary[name] for name in ("images", "n", "failure_prob", "bound", "arithmetic", "acr")),
        *(summary[name] for name in ("acr_standard_error", "acr_one_class", "acr_two_class")),
        *(summary[name] for name in ("constant_classifier_acr", "clean_accuracy")),
        *((gain.mean, gain.low, gain.high) if gain else (None, None, None)),
    )


def table_row(result: Result) -> list[str]:
    compared = ["", ""]
    if result.gain is not None:
        compared = [f"{result.gain:+.3f}", f"[{result.gain_low:+.3f}, {result.gain_high:+.3f}]"]
    return [
        level_key(result.sigma),
        result.method,
        *(acr_cell(vars(result), bound) for bound in BOUND_NAMES),
        f"{result.clean_accuracy:.3f}",
        *compared,
        display_radius(result.constant_classifier_acr),
    ]


if __name__ == "__main__":
    main()
