"""Take runs over into the workspace that DVC tracks."""

import gzip
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.published.runs import FACTS
from components import params as parameters
from components.data.prepared import load_description
from components.evaluation.rebound import bound_of
from components.model.card import WEIGHTS, load_card
from components.params import Params, level_key
from components.tools.files import read_json, write_text
from pipelines import artifacts


def adopt(runs: list[Path]) -> None:
    """Copy the outputs of finished runs into this workspace and have DVC record them as those of its stages.

    Raises:
        ValueError: a run is not finished, or has other parameters or data than this workspace; raised before anything
            is copied.
    """
    here = parameters.load(artifacts.PARAMS)
    sigmas = [fitting_sigma(run, here) for run in runs]
    stages = []
    for run, sigma in zip(runs, sigmas, strict=True):
        for out in (artifacts.model(sigma), artifacts.history(sigma).parent, artifacts.certificates(sigma).parent):
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(run / out, out)
        packed = artifacts.certificates(sigma).with_name(artifacts.certificates(sigma).name + ".gz")
        write_text(artifacts.certificates(sigma), gzip.decompress(packed.read_bytes()).decode())
        packed.unlink()
        stages += [f"train@{level_key(sigma)}", f"certify@{level_key(sigma)}"]
    for command in (["repro", "brought"], ["commit", "--force", *stages]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    print("taken over: " + ", ".join(stages) + "; `dvc repro` goes on from there")


def fitting_sigma(run: Path, here: Params) -> float:
    """The sigma of a run, if it is finished and fits this workspace."""
    if not (run / FACTS).exists():
        raise ValueError(f"{run} is not a finished run: it has no {FACTS}")
    theirs = parameters.load(run / artifacts.PARAMS)
    (sigma,) = theirs.sigmas
    weights = run / artifacts.model(sigma) / WEIGHTS
    if not weights.exists():
        raise ValueError(f"{run} is kept without its weights: fetch them, `dvc pull {weights}.dvc`, or run it again")
    if sigma not in here.sigmas:
        raise ValueError(f"{run} is of sigma {sigma}: params.yaml has {', '.join(here.noise_levels)}")
    ours = {"seed": here.seed, "train": here.train_at(sigma).facts, "certify": asdict(here.certify)}
    its = {"seed": theirs.seed, "train": theirs.train_at(sigma).facts, "certify": asdict(theirs.certify)}
    for section in ours:
        if ours[section] != its[section]:
            raise ValueError(
                f"{run} has other parameters in the section {section}: take them over from {run / artifacts.PARAMS}"
            )
    made = bound_of(read_json(run / artifacts.certificates_identity(sigma), "run it again"))
    if here.certify.mode == "reference" and made != here.certify.bound:
        raise ValueError(f"{run} has a table of the {made} bound: set certify.bound to {made} in params.yaml")
    if not artifacts.DESCRIPTION.exists():
        raise ValueError(f"{artifacts.DESCRIPTION} is missing: run `dvc repro validate` first")
    if load_card(run / artifacts.model(sigma)).data_sha256 != load_description(artifacts.DESCRIPTION).sha256:
        raise ValueError(f"{run} was trained on other data than {artifacts.DESCRIPTION}: run `dvc repro validate`")
    return sigma
