"""How tight are the certificates? Attack the smoothed classifier on certified test images and compare the smallest L2
distance at which its class was seen to change with the certified radius.

Reads the weights in outputs/models and the tables in outputs/certificates; writes outputs/attacks/SIGMA/table.tsv, its
identity beside it, a plot, and the run's report with what the attacks found. Goes on where an interrupted run of
the same attack stopped.

Exit code 0: no certificate is contradicted; 1: one is (the image is named), or the attack failed; 2: bad usage; 75:
stopped early with its progress kept.
"""

import argparse
import io
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from components.certification import table
from components.certification.bounds import DECIMALS
from components.certification.rows import check_fit, common_facts
from components.certification.sampling import Sampler
from components.certification.side_by_side import Stopping, certify_images
from components.certification.table import ABSTAIN, PartialTable, display_radius
from components.data.image_files import decoder_version
from components.data.prepared import Split, load_description
from components.data.streaming import FileSplit, on_grid, open_split
from components.evaluation import attack_report, plots
from components.evaluation.attacked import FAILURE_PROB, LARGEST, Settings, attack, distance
from components.model import weights
from components.params import Params, level_key
from components.tools.device import available_cores, use_device
from components.tools.files import claim, read_json, write_json
from components.tools.hashing import derive_seed, hash_code, hash_file
from components.tools.progress import Progress
from components.training.attack import eval_mode
from pipelines import artifacts
from pipelines.cli import BAD_PARAMETERS, StoppedEarly, add_max_minutes, guard, load_params, stop_requests, whole_number
from pipelines.report_files import load_level, write_page

COLUMNS = ["idx", "label", "predict", "radius", "attacked", "steps", "noises"]
"""`attacked`, rounded up, is empty where no change was found."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.attack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sigma", type=float, help="one of the noise_levels of params.yaml (default: all of them)")
    what = "certified images to attack per noise level, evenly spread over the table"
    parser.add_argument("--images", type=whole_number, default=50, help=f"{what} (default: %(default)s)")
    parser.add_argument("--steps", type=whole_number, default=40, help="of the projected ascent (default: %(default)s)")
    parser.add_argument("--noises", type=whole_number, default=64, help="per step of the ascent (default: %(default)s)")
    said = "samples at most of each judgement whether the class has changed; more come nearer to its border"
    parser.add_argument("--n", type=whole_number, default=4000, help=f"{said} (default: %(default)s)")
    add_max_minutes(parser)
    options = parser.parse_args()
    params = load_params()
    if options.sigma not in (None, *params.sigmas):
        print(f"error: --sigma is {options.sigma}: params.yaml has {', '.join(params.noise_levels)}", file=sys.stderr)
        sys.exit(BAD_PARAMETERS)
    settings = Settings(options.steps, options.noises, options.n)
    sys.exit(guard(run, params, options.sigma, options.images, settings, options.max_minutes))


def run(params: Params, sigma: float | None, images: int, settings: Settings, max_minutes: float = math.inf) -> None:
    """Attack the images of one noise level, or of all.

    Raises:
        ValueError: a certificate is contradicted, or something needed is missing.
        StoppedEarly: at the deadline, or on SIGINT or SIGTERM.
    """
    deadline = time.monotonic() + 60 * max_minutes
    tables = {}
    for level in params.sigmas if sigma is None else [sigma]:
        job = set_up(params, level, images, settings)
        with stop_requests() as stop_asked:
            lines = attack_missing(job, Stopping(deadline, stop_asked))
        tables[level_key(level)] = write(job, lines)
    folder = artifacts.ATTACKS if sigma is None else artifacts.attacks(sigma).parent
    png = folder / "certified_and_attacked.png"
    points = pd.concat([rows.assign(sigma=key) for key, rows in tables.items()])
    title = f"Certified and attacked radii of {params.register.name}"
    plots.render_png(attack_report.certified_and_attacked_spec(points, title), png)
    description = load_description(artifacts.DESCRIPTION)
    levels = [load_level(params, float(key), description, attacks=True) for key in tables]
    write_page(params, description, levels, folder / artifacts.ATTACKS_PAGE)
    print(attack_report.text_summary({key: attack_report.summarize(rows) for key, rows in tables.items()}))
    print(f"plot:   {png}\nreport: {folder / artifacts.ATTACKS_PAGE}")
    raise_for_contradictions(tables)


@dataclass(frozen=True)
class Job:
    """What is attacked, and how."""

    network: nn.Module
    sampler: Sampler
    split: Split | FileSplit
    max_value: int
    """The pixel value that stands for 1.0."""
    settings: Settings
    certified: pd.DataFrame
    """The rows of the table of certificates whose images are attacked."""
    identity: dict[str, Any]
    """All that a row is a function of, besides the image's number."""

    def image(self, index: int) -> Tensor:
        return on_grid(torch.from_numpy(self.split.image(index)), self.max_value, self.sampler.grid)


def set_up(params: Params, sigma: float, images: int, settings: Settings) -> Job:
    """Weights, images and certificates, checked against each other.

    Raises:
        ValueError: they do not belong together, or nothing is certified.
    """
    description, path = load_description(artifacts.DESCRIPTION), artifacts.certificates(sigma)
    device = use_device(1, params.certify.device)  # images run side by side instead, which changes no result
    network, card = weights.load(artifacts.model(sigma), device)
    check_fit(card, sigma, description.image_shape, description.classes, artifacts.model(sigma))
    certificates = table.read(path)
    remedy = f"run python -m pipelines.certify --sigma {level_key(sigma)}, or dvc repro"
    certified_as = read_json(artifacts.certificates_identity(sigma), remedy)
    for name, here in (card.content | {"images_sha256": description.test_sha256}).items():
        if certified_as.get(name) != here:
            what = "test images" if name == "images_sha256" else "weights"
            raise ValueError(f"{path} is of other {what} than lie in {artifacts.OUTPUTS}: {remedy}")
    certified = certificates[(certificates["predict"] != ABSTAIN) & (certificates["radius"] > 0)]
    if not len(certified):
        raise ValueError(f"{path} certifies no image: there is nothing to attack; see certify.n and the training")
    shape, classes = tuple(card.image_shape), len(card.classes)
    sampler = Sampler(network, sigma, grid=card.grid, image_shape=shape, num_classes=classes, precision=card.precision)
    split = open_split(artifacts.TEST_SPLIT, artifacts.source_root(params.prepare.root))
    identity = {
        "attack": "minimum_norm",
        **asdict(settings),
        "failure_prob": FAILURE_PROB,
        "largest_radius": LARGEST * sigma,
        **common_facts(sampler),
        "sigma": sigma,
        "seed": derive_seed(params.seed, "attack", str(sigma)),
        **card.content,
        "images_sha256": description.test_sha256,
        "certificates_sha256": hash_file(path),
        "code_sha256": hash_code([*artifacts.code_of("certify"), *ATTACK_CODE]),
    }
    if isinstance(split, FileSplit):
        identity["decoder"] = decoder_version()
    chosen = np.linspace(0, len(certified) - 1, min(images, len(certified))).round().astype(int)
    return Job(network, sampler, split, description.max_value, settings, certified.iloc[chosen], identity)


ATTACK_CODE = [artifacts.SOURCE / "components/evaluation/attacked.py", artifacts.SOURCE / "components/training"]
"""What a row depends on beside the code of a certification."""


def attack_missing(job: Job, stopping: Stopping) -> list[str]:
    """The rows of all images of the job, in their order; those that are missing are computed and kept.

    Raises:
        StoppedEarly: `stopping` ended it.
    """
    folder = artifacts.partial_table(job.identity)
    claim(folder)
    rows = PartialTable(folder, job.identity, COLUMNS)
    certificates = {int(row["idx"]): row for row in job.certified.to_dict("records")}
    missing = [index for index in certificates if index not in rows.lines]
    done, total = len(certificates) - len(missing), len(certificates)
    workers = 1 if job.sampler.device.type == "cuda" else available_cores()
    images = ((index, job.image(index)) for index in missing)
    with (
        eval_mode(job.network) as classifier,
        Progress(f"attack σ={job.sampler.sigma}", total, "images", done=done) as progress,
    ):
        attack_one = partial(nearest, job, classifier, certificates, stopping.give_up_in_time)
        for index, attacked in certify_images(images, attack_one, workers=workers, stopping=stopping):
            rows.append(index, format_row(certificates[index], attacked, job.settings))
            progress.advance()
    rows.close()
    if left := sum(index not in rows.lines for index in certificates):
        raise StoppedEarly(f"stopped after {total - left} of {total} images at sigma {job.sampler.sigma}")
    return [rows.lines[index] for index in certificates]


def nearest(
    job: Job,
    classifier: nn.Module,
    certificates: dict[int, dict],
    before_block: Callable[[], None],
    image: Tensor,
    index: int,
) -> float | None:
    """The distance of the nearest image found that has another class than the certified one."""
    found = attack(
        job.sampler,
        classifier,
        image,
        int(certificates[index]["predict"]),
        seed=job.identity["seed"],
        index=index,
        settings=job.settings,
        before_block=before_block,
    )
    return None if found is None else distance(image, found, job.sampler.grid)


def format_row(certificate: dict, attacked: float | None, settings: Settings) -> str:
    """One line of the table."""
    values = [int(certificate[name]) for name in ("idx", "label", "predict")]
    radii = [certificate["radius"], attacked]
    written = ["" if radius is None else f"{radius:.{DECIMALS}f}" for radius in radii]
    return "\t".join(map(str, [*values, *written, settings.steps, settings.noises])) + "\n"


def write(job: Job, lines: list[str]) -> pd.DataFrame:
    """The table and its identity, which also says how many images it is of; the table as it reads."""
    sigma = job.sampler.sigma
    table.write(artifacts.attacks(sigma), lines, COLUMNS)
    write_json(artifacts.attacks_identity(sigma), job.identity | {"images": len(lines)})
    return pd.read_csv(io.StringIO("\t".join(COLUMNS) + "\n" + "".join(lines)), sep="\t", dtype={"attacked": float})


def raise_for_contradictions(tables: dict[str, pd.DataFrame]) -> None:
    """Print each certificate that an attack contradicts.

    Raises:
        ValueError: there is one.
    """
    wrong = [(key, row) for key, rows in tables.items() for row in attack_report.contradicted(rows).to_dict("records")]
    for key, row in wrong:
        print(
            f"sigma {key}: the certificate of image {row['idx']} is contradicted: class {row['predict']} is certified "
            f"within {row['radius']:.{DECIMALS}f}, and has changed at {row['attacked']:.{DECIMALS}f}"
        )
    if wrong:
        raise ValueError(
            f"{len(wrong)} certificates are contradicted (see above): use none of these tables; "
            "try the registered one with python -m pipelines.audit"
        )
    least = min(
        (gap for rows in tables.values() if not math.isnan(gap := (rows["attacked"] - rows["radius"]).min())),
        default=None,
    )
    said = "" if least is None else f"; the nearest change is {display_radius(least)} outside of one"
    print(f"no certificate is contradicted{said}")


if __name__ == "__main__":
    main()
