"""Audit a registered model's table of certificates: its files, its images and labels, its arithmetic, and a sample of
its rows with fresh noise.

Exit code 0: the table stands; 1: it does not, or could not be audited; 2: bad usage.
"""

import argparse
import secrets
import sys

import numpy as np
import torch
from torch import Tensor

from components.certification.classifier import SmoothedClassifier
from components.certification.side_by_side import certify_images
from components.certification.table import display_radius
from components.data.prepared import Split, load_description
from components.data.streaming import FileSplit, on_grid, open_split
from components.evaluation.audit import (
    claimed_probability,
    contradictions_needed,
    inconsistent_rows,
    is_contradicted,
    named,
    unlike_the_images,
)
from components.evaluation.verdict import Certified
from components.params import load as load_params
from components.params import smallest_n
from components.registry.connection import in_one_line, use_store
from components.registry.loading import load_classifier
from components.registry.model_files import find_version
from components.registry.tables import run_table
from components.registry.tracking import CONTENT
from components.tools.device import available_cores
from components.tools.progress import Progress
from components.tools.wording import counted
from pipelines import artifacts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.audit", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", required=True, help="models:/<name>@<alias> or models:/<name>/<version>")
    parser.add_argument("--images", type=count, default=50, help="rows to test with fresh noise")
    parser.add_argument("--n", type=count, default=10_000, help="fresh samples per row")
    parser.add_argument(
        "--false-alarm",
        type=probability,
        default=0.001,
        help="largest probability that an honest table is reported not to stand",
    )
    options = parser.parse_args()
    try:
        use_store(artifacts.tracking_store())
        with in_one_line("try again"):
            findings = audit(options.model, options.images, options.n, options.false_alarm)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{options.model}: the table {'DOES NOT STAND: ' + '; '.join(findings) if findings else 'stands'}")
    sys.exit(1 if findings else 0)


def count(text: str) -> int:
    """A whole number >= 1 on a command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number >= 1")
    return value


def probability(text: str) -> float:
    """A number > 0 and < 1 on a command line."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number > 0 and < 1")
    return value


def audit(uri: str, images: int, n: int, false_alarm: float) -> list[str]:
    """The findings against the table; empty if it stands."""
    say(f"loading {uri} and its table")
    classifier = load_classifier(uri)
    version = find_version(uri)
    certified = run_table(version)
    if certified is None:
        raise ValueError(f"the run of {uri} holds no table of certificates: run the register stage again")
    split = open_split(artifacts.TEST_SPLIT, artifacts.source_root(load_params(artifacts.PARAMS).prepare.root))
    if split.sha256 != certified.identity["images_sha256"]:
        raise ValueError(f"{artifacts.TEST_SPLIT} holds other images than the table: prepare the table's data")
    tests = counted(len(split.labels), "test images")
    say(f"checking {counted(len(certified.table), 'rows')} against the {tests} and their own counts")
    findings = []
    if certified.table.attrs["content"] != version.tags.get(CONTENT):
        findings.append("table.tsv is not the file that was registered with these weights")
    facts = {"weights_sha256": classifier.card.weights_sha256, "sigma": classifier.card.sigma}
    findings += [f"its identity says another {name}" for name in facts if certified.identity.get(name) != facts[name]]
    if "every" not in certified.identity:
        print("an older table: its identity does not name its images, so they are taken from its rows")
    findings += unlike_the_images(certified.table, split.labels, certified.identity)
    if wrong := inconsistent_rows(certified.table, certified.identity):
        rows = counted(len(wrong), "rows claim", "row claims")
        findings.append(f"{rows} more than their counts give (images {named(wrong)})")
    if not certified.table["idx"].isin(range(len(split.labels))).all():
        return findings  # without the image there are no fresh samples
    return findings + fresh_trial(classifier, certified, split, images, n, false_alarm)


def fresh_trial(
    classifier: SmoothedClassifier, certified: Certified, split: Split | FileSplit, images: int, n: int, alarm: float
) -> list[str]:
    """Test rows drawn at random, including those that abstain, with fresh noise.

    Raises:
        ValueError: n or the number of images is so small that nothing could contradict the table.
    """
    sigma, failure_prob = classifier.card.sigma, certified.identity["failure_prob"]
    images = min(images, len(certified.table))
    needed = contradictions_needed(images, failure_prob, alarm)
    least = smallest_n(failure_prob, "one_class")
    if n < least:
        raise ValueError(f"n is {n}: no row can be contradicted by fewer than {least} fresh samples")
    if needed > images:
        rows = counted(images, "rows are", "row is")
        raise ValueError(f"{rows} too few to contradict a table: test more, or raise --false-alarm")
    seed = secrets.randbits(63)
    drawn = certified.table.sample(images, random_state=np.random.default_rng(seed))
    counts = fresh_counts(classifier, split, drawn["idx"].tolist(), n, seed)
    contradicted = []
    for row in drawn.to_dict("records"):
        claimed = claimed_probability(row["predict"], row["p_lower"], row["radius"], sigma)
        hits = int(counts[row["idx"]][row["predict"]])
        if claimed and is_contradicted(hits, n, claimed, failure_prob):
            contradicted.append(int(row["idx"]))
            print(
                f"image {row['idx']}: class {row['predict']} at radius {display_radius(row['radius'])} needs at least "
                f"{claimed:.4f} of the samples, has {hits} of {n}"
            )
    rows = counted(len(certified.table), "rows")
    print(
        f"{len(drawn)} of {rows} at failure_prob {failure_prob:g} tried, n = {n}, seed {seed}: "
        f"{len(contradicted)} contradicted; an honest table has {needed} or more with probability at most {alarm:g}"
    )
    return [f"fresh noise contradicts {counted(len(contradicted), 'rows')}"] if len(contradicted) >= needed else []


def fresh_counts(
    classifier: SmoothedClassifier, split: Split | FileSplit, indices: list[int], n: int, seed: int
) -> dict[int, np.ndarray]:
    """How often each class wins among `n` fresh samples of each test image."""
    max_value = load_description(artifacts.DESCRIPTION).max_value
    grid = classifier.sampler.grid
    images = ((i, on_grid(torch.from_numpy(split.image(i)), max_value, grid)) for i in indices)

    def count(image: Tensor, index: int) -> np.ndarray:
        return classifier.sampler.stream(image, seed=seed, index=index).count(n)

    workers = 1 if classifier.sampler.device.type == "cuda" else available_cores()
    counts = {}
    with Progress("fresh noise", len(indices), "images") as progress:
        for index, of_each_class in certify_images(images, count, workers=workers):
            counts[index] = of_each_class
            progress.advance()
    return counts


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
