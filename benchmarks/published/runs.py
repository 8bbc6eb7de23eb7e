"""Runs of the stages prepare, train and certify: one folder per method and noise level, and per seed where several are
asked for, each a workspace of its own.

All that a run needs to continue is in its folder, so a machine may be lost at any moment. A finished run holds:
params.yaml, metrics.json, run.json and in outputs/ models/, training_logs/ and certificates/ (the table compressed).
"""

import gzip
import shutil
import sys
import tarfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.workspace import DATA, read_params, run_in, share_data, write_params
from components import params as parameters
from components.certification import table
from components.data.prepared import load_description
from components.evaluation.metrics import summarize
from components.params import level_key
from components.parsing import read_yaml, yaml_value
from components.tools.files import read_json, write_json
from components.tools.provenance import provenance
from pipelines import artifacts
from pipelines.cli import DONE, STOPPED_EARLY

FACTS, METRICS, SECONDS = "run.json", "metrics.json", "seconds.json"
SEED = "seed_"
"""What the folder of one of several seeds is named by."""


@dataclass(frozen=True)
class Plan:
    """What to run, and where it is kept."""

    recipe: Path
    out: Path
    epochs: int | None
    settings: dict[str, str]
    packs: Path | None
    data: str | None
    seeds: list[int] | None = None

    def params(self, method: str, levels: list[str] | None, seed: int | None = None) -> dict[str, Any]:
        """The parameters of one method: the recipe's, with the plan's changes, and this seed if there is one.

        Raises:
            ParamsError: an unknown key, or a value out of its range.
        """
        raw = read_yaml(self.recipe)
        if self.epochs:
            raw["train"] |= scaled(raw["train"], self.epochs)
        for key, value in self.settings.items():
            section, _, name = key.rpartition(".")
            place = raw
            for part in section.split(".") if section else []:
                place = place.setdefault(part, {})
            place[name] = yaml_value(value, key)
        raw["train"]["method"] = method
        if seed is not None:
            raw["seed"] = seed
        if levels is not None:
            unknown = [level for level in levels if level not in raw["noise_levels"]]
            if unknown:
                raise ValueError(f"--sigmas has {unknown[0]}: {self.recipe} has {', '.join(raw['noise_levels'])}")
            raw["noise_levels"] = {level: raw["noise_levels"][level] for level in levels}
        parameters.parse(raw)
        return raw


def scaled(train: dict[str, Any], epochs: int) -> dict[str, int]:
    """Scale decay and warm-up (and with decay macer's deferral) to the number of epochs, to at least 1 each."""
    share = epochs / train["epochs"]
    return {"epochs": epochs} | {name: max(1, round(share * train[name])) for name in ("decay_every", "warmup_epochs")}


def run_all(plan: Plan, methods: list[str], levels: list[str] | None, seconds: float) -> int:
    """Run all unfinished runs, seed by seed and level by level; return 75 if the time ends before the work.

    Raises:
        ValueError, ParamsError: see `Plan.params`; a folder holds a run of other parameters; a stage failed.
    """
    deadline = time.monotonic() + seconds
    keys = list(plan.params(methods[0], levels)["noise_levels"])
    seeds: list[int | None] = [*plan.seeds] if plan.seeds else [None]
    runs = [Run(plan, method, level, seed) for seed in seeds for level in keys for method in methods]
    for run in runs:  # refuse before anything is computed
        run.begin()
    for number, run in enumerate(runs, 1):
        if (run.folder / FACTS).exists():
            print(f"{run.name}: finished before")
            continue
        print(f"{run.name} ({number} of {len(runs)})", flush=True)
        if run.finish_before(deadline) == STOPPED_EARLY:
            print("the time is over; all of it is kept: run the same command again to go on", file=sys.stderr)
            return STOPPED_EARLY
    return DONE


@dataclass(frozen=True)
class Run:
    """One method at one noise level, by one of several seeds or by the recipe's."""

    plan: Plan
    method: str
    level: str
    seed: int | None = None

    @property
    def name(self) -> str:
        by = "" if self.seed is None else f" seed {self.seed}"
        return f"{self.plan.out.name} {self.method} σ={self.level}{by}"

    @property
    def folder(self) -> Path:
        by = "" if self.seed is None else f"{SEED}{self.seed}"
        return self.plan.out / by / self.method / self.level

    @property
    def params(self) -> dict[str, Any]:
        return self.plan.params(self.method, [self.level], self.seed)

    def begin(self) -> None:
        """Unpack what an earlier machine saved, and write the parameters.

        Raises:
            ValueError: the folder holds a run of other parameters.
        """
        if self._pack and self._pack.exists() and not self.folder.exists():
            self.folder.mkdir(parents=True)
            with tarfile.open(self._pack) as archive:
                archive.extractall(self.folder, filter="data")
        wanted, file = self.params, self.folder / artifacts.PARAMS
        if file.exists() and read_params(self.folder) != asdict(parameters.parse(wanted)):
            raise ValueError(f"{file} holds other parameters than these: name another --out, or remove {self.folder}")
        write_params(self.folder, wanted)

    def finish_before(self, deadline: float) -> int:
        """Prepare, train and certify, and pack what there is; STOPPED_EARLY at the deadline, DONE otherwise."""
        self._share_data()
        code = self._stages_before(deadline)
        if code == DONE:
            self._describe()
        self._keep()
        return code

    def _stages_before(self, deadline: float) -> int:
        for stage in ("train", "certify"):
            start = time.monotonic()
            if start >= deadline:
                return STOPPED_EARLY
            code = run_in(self.folder, stage, "--sigma", self.level, "--max-minutes", str((deadline - start) / 60))
            self._add_seconds(stage, time.monotonic() - start)
            if code == STOPPED_EARLY:
                return code
        return DONE

    def _share_data(self) -> None:
        """The prepared data, made once for all runs beside them: split by the recipe's seed, so that all seeds are
        tested on the same images."""
        raw = self.plan.params(self.method, [self.level])
        if self.plan.data:
            raw["prepare"]["root"] = str(Path(self.plan.data).resolve())
        share_data(self.folder, self.plan.out / ".prepared", raw)

    def _add_seconds(self, stage: str, seconds: float) -> None:
        file = self.folder / SECONDS
        spent = read_json(file, f"remove {file}") if file.exists() else {}
        write_json(file, spent | {stage: spent.get(stage, 0.0) + seconds})

    def _describe(self) -> None:
        """Write metrics and circumstances of a run; this comes last, because it marks the run as finished."""
        sigma, own = float(self.level), self.folder
        rows = table.read(own / artifacts.certificates(sigma))
        identity = read_json(own / artifacts.certificates_identity(sigma), "run it again")
        spent = read_json(own / SECONDS, "run it again")
        radii = parameters.parse(self.params).evaluate.radii
        write_json(own / METRICS, {level_key(sigma): summarize(rows, radii, identity)})
        write_json(own / artifacts.provenance(sigma), provenance())
        compress(own / artifacts.certificates(sigma))
        samples = int(rows["n"].sum()) + identity["n0"] * len(rows)
        rate = round(samples / spent["certify"])
        images = load_description(own / artifacts.DESCRIPTION).train_images
        facts = {"recipe": self.plan.recipe.stem, "train_images": images, "seconds": spent}
        facts |= {"certified_samples_per_s": rate, **provenance()}
        for leftover in (own / ".state", own / DATA):
            if leftover.is_symlink():
                leftover.unlink()
            else:
                shutil.rmtree(leftover, ignore_errors=True)
        (own / SECONDS).unlink()
        write_json(own / FACTS, facts)

    @property
    def _pack(self) -> Path | None:
        named = "-".join([self.plan.out.name, *self.folder.relative_to(self.plan.out).parts])
        return self.plan.packs and self.plan.packs / f"{named}.tar.gz"

    def _keep(self) -> None:
        """Pack the run for the next machine."""
        if self._pack is None:
            return
        self._pack.parent.mkdir(parents=True, exist_ok=True)
        torn = self._pack.with_suffix(".tmp")
        with tarfile.open(torn, "w:gz") as archive:
            archive.add(self.folder, ".", filter=lambda member: None if member.issym() else member)
        torn.replace(self._pack)


def compress(file: Path) -> None:
    """Replace a file by its compressed form, whose bytes do not depend on the time."""
    packed = file.with_name(file.name + ".gz")
    packed.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    file.unlink()
