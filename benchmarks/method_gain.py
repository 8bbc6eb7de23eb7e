"""What SmoothMix gains over plain Gaussian training.

Runs the stages prepare, train and certify for both methods in temporary workspaces, with the recipe of params.yaml:
same network, epochs, seed, batch size and test images. Gaussian gets the learning rate that suits it. The tables are
compared pair by pair.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from components import params
from components.certification import table
from components.certification.table import display_radius
from components.evaluation.compare import paired_acr_difference
from components.evaluation.metrics import summarize
from components.evaluation.report import text_table
from components.params import level_key
from pipelines import artifacts

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussian-learning-rate", type=float, default=0.1, help="default: %(default)s")
    rate = parser.parse_args().gaussian_learning_rate
    recipe = params.load()
    raw = yaml.safe_load(artifacts.PARAMS.read_text())
    smoothmix = certified_tables(raw | {"train": raw["train"] | {"method": "smoothmix"}})
    gaussian = certified_tables(raw | {"train": raw["train"] | {"method": "gaussian", "learning_rate": rate}})
    rows = []
    for sigma in recipe.sigmas:
        facts = {
            "mode": "reference",
            "sigma": sigma,
            "n": recipe.certify.n,
            "failure_prob": recipe.certify.failure_prob,
        }
        gain = paired_acr_difference(gaussian[sigma], smoothmix[sigma])
        ours, theirs = (summarize(tables[sigma], [], facts) for tables in (smoothmix, gaussian))
        values = [display_radius(summary["acr"]) for summary in (theirs, ours)]
        interval = f"[{gain.low:+.3f}, {gain.high:+.3f}]"
        floor = display_radius(ours["constant_classifier_acr"])
        rows.append([level_key(sigma), *values, f"{gain.mean:+.3f}", interval, floor])
    print(f"{raw['prepare']['source']}: {ours['images']} test images, n = {recipe.certify.n:,}")
    print(text_table(["sigma", "gaussian ACR", "smoothmix ACR", "gain", "paired 95 % interval", "floor"], rows))


def certified_tables(raw: dict[str, Any]) -> dict[float, pd.DataFrame]:
    """The tables of certificates that the stages give for these parameters, by sigma."""
    with tempfile.TemporaryDirectory() as workspace:
        (Path(workspace) / artifacts.PARAMS).write_text(yaml.safe_dump(raw))
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        environment.pop("MLFLOW_TRACKING_URI", None)  # a benchmark is not a run to keep
        commands = [["prepare"], ["validate"]]
        for level in raw["noise_levels"]:
            commands += [["train", "--sigma", level], ["certify", "--sigma", level]]
        for stage, *options in commands:
            command = [sys.executable, "-m", f"pipelines.{stage}", *options]
            subprocess.run(command, cwd=workspace, env=environment, check=True)
        return {
            float(level): table.read(Path(workspace) / artifacts.certificates(float(level)))
            for level in raw["noise_levels"]
        }


if __name__ == "__main__":
    main()
