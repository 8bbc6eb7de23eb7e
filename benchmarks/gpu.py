"""What a GPU shows in minutes: `make gpu`, or python -m benchmarks.gpu --out FILE.json.

noise          the kernel's noise is the reference's, bit for bit
resume         a training that stops in the middle and goes on gives the weights of one that does not, bit for bit
training       images per second beside a plain loop (benchmarks/training.py)
certification  samples per second beside a plain loop (benchmarks/certification.py)
blocks         samples per second by the samples of one forward, for certify.block; where the memory ends
tests          the tests that need a GPU, where pytest is installed
mnist          SmoothMix on MNIST at sigma 0.5 by recipes/mnist.yaml, as far as the time allows: the folder beside FILE
               keeps it, and the same command goes on there

Each part writes what it found into FILE, or its error, and the next one follows. Needs no DVC, MLflow, Prefect or Great
Expectations. Exit code 1 where a part failed or there is no GPU.
"""

import argparse
import copy
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks import certification, training
from benchmarks.hardware import has_bfloat16
from components import params
from components.certification.noise import noisy_copies
from components.certification.noise.discrete_normal import discrete_normal
from components.certification.noise.reference import integer_noise, on_unit_scale
from components.certification.sampling import Sampler
from components.model import networks
from components.params import Train
from components.parsing import read_yaml
from components.tools.device import available_cores, use_device
from components.tools.files import read_json, write_json
from components.tools.provenance import provenance
from components.training.fit import fit
from components.training.optimizer import make_optimizer
from components.training.state import Training
from pipelines.cli import DONE, FAILED, STOPPED_EARLY, positive

ROOT = Path(__file__).parents[1]
RECIPE, SIGMA, SEED = ROOT / "recipes/mnist.yaml", 0.5, 0
BLOCKS = {"resnet20": ((3, 32, 32), [250, 1001, 5005, 10010]), "resnet50": ((3, 224, 224), [50, 102, 250, 500])}
"""Network: image shape, and the numbers of samples in one forward that are tried."""
SAMPLED = Namespace(n=20_000, images=2, turns=3, float_turns=0, compile=False, precision=None)
"""What is certified when its speed is measured."""
TESTS = ["tests/certification/test_certification_on_gpu.py", "tests/training/test_training_on_gpu.py"]

Part = Callable[[], Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="what was found, as JSON")
    parser.add_argument(
        "--max-minutes", type=positive, default=9.0, help="for all parts together (default: %(default)g)"
    )
    parser.add_argument("--data", help="folder that has MNIST/raw (default: the recipe's, which downloads it)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: torch sees no GPU here: look at what nvidia-smi says, or run this elsewhere", file=sys.stderr)
        return FAILED
    deadline = time.monotonic() + 60 * options.max_minutes
    device = use_device(available_cores(), "cuda")
    folder = options.out.with_suffix("")
    parts: dict[str, Part] = {
        "noise": lambda: exact_noise(device),
        "resume": lambda: resumed(device),
        "training": lambda: [training.measure(case, 5, available_cores()) for case in training.CASES],
        "certification": lambda: [certification.measure(case, SAMPLED) for case in ("lenet", "resnet20")],
        "blocks": lambda: {case: by_block(device, case) for case in BLOCKS},
        "tests": lambda: tested(deadline),
        "mnist": lambda: mnist(folder, (deadline - time.monotonic()) / 60, options.data),
    }
    return FAILED if failed(collect(parts, options.out)) else DONE


def collect(parts: dict[str, Part], out: Path) -> dict[str, Any]:
    """What each part found, or its error, with commit, seed, hardware and versions; written after each part."""
    found: dict[str, Any] = {**provenance(), "cuda": torch.version.cuda, "seed": SEED, "parts": {}}
    for name, part in parts.items():
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        try:
            told = {"found": part()}
        except Exception as error:  # whatever it is, it is told, and the other parts are worth as much
            told = {"error": f"{type(error).__name__}: {error}"}
        found["parts"][name] = told | {"seconds": round(time.monotonic() - start, 1)}
        print(f"{name}: {told}", flush=True)
        write_json(out, found)
    return found


def failed(found: dict[str, Any]) -> list[str]:
    """The parts that ended in an error."""
    return [name for name, told in found["parts"].items() if "error" in told]


def exact_noise(device: torch.device, shapes: Iterable[tuple[int, int, int]] = ((1, 28, 28), (3, 32, 31))) -> str:
    """Draw the noise on the device and by the reference.

    Raises:
        ValueError: they differ.
    """
    normal = discrete_normal(SIGMA, 255)
    for shape in shapes:
        image = torch.randint(256, shape, dtype=torch.int32)
        for index, start in ((7, 0), (2**31, 2**32 - 20)):
            key = {"seed": 2**62 + 12345, "index": index, "start": start, "stop": start + 50}
            copies, lost = noisy_copies(image.to(device), normal, **key)
            noise, expected_lost = integer_noise(normal, **key, values=image.numel())
            expected = torch.from_numpy(on_unit_scale(image.numpy().ravel() + noise, 255)).view(copies.shape)
            if not torch.equal(copies.cpu(), expected) or lost.tolist() != expected_lost.tolist():
                raise ValueError(f"the noise of an image of {shape} at sample {start} is not the reference's")
    return "as the reference"


def settings_of(device: torch.device, network: str, epochs: int) -> Train:
    """The recipe's, for a training on random images."""
    precision: Any = "bfloat16" if has_bfloat16(device) else "float32"
    recipe = params.parse(read_yaml(RECIPE)).train_at(SIGMA)
    return replace(recipe, network=network, epochs=epochs, batch_size=64, precision=precision)


def resumed(device: torch.device, network: str = "lenet", images: int = 256) -> str:
    """Train two epochs in one go, and with a stop in the middle of the second.

    Raises:
        ValueError: the weights differ.
    """
    settings = settings_of(device, network, epochs=2)
    torch.manual_seed(SEED)
    pixels = torch.randint(256, (images, 1, 28, 28), dtype=torch.uint8).to(device)
    labels = torch.randint(10, (images,)).to(device)
    first = networks.build(network, (1, 28, 28), 10).to(device)
    options: dict[str, Any] = {"max_value": 255, "sigma": SIGMA, "settings": settings, "seed": SEED}

    def begin(state: dict[str, Any] | None = None) -> Training:
        own = copy.deepcopy(first)
        started = Training(own, make_optimizer(own, settings))
        if state:
            started.load_state(state)
        return started

    whole, part = begin(), begin()
    steps = sum(1 for _ in fit(whole, pixels, labels, **options))
    for _ in islice(fit(part, pixels, labels, **options), 3 * steps // 4):
        pass
    rest = begin(copy.deepcopy(part.state()))
    for _ in fit(rest, pixels, labels, **options):
        pass
    if rest.weights_sha256() != whole.weights_sha256():
        raise ValueError("the weights are not those of a training without a stop")
    return f"the same weights after {steps} steps"


def by_block(device: torch.device, case: str, turns: int = 3) -> dict[str, Any]:
    """Samples per second by the number of samples in one forward, and where they are most."""
    shape, blocks = BLOCKS[case]
    precision = "bfloat16" if has_bfloat16(device) else "float32"
    network = networks.build(case, shape, 10).to(device)
    image = torch.randint(256, shape, dtype=torch.int32)
    rates: dict[str, Any] = {}
    for block in blocks:
        sampler = Sampler(network, SIGMA, grid=255, image_shape=shape, num_classes=10, precision=precision, block=block)
        try:
            rates[str(block)] = samples_per_second(sampler, image, turns)
        except torch.OutOfMemoryError:
            rates[str(block)] = "out of memory"
    measured = {block: rate for block, rate in rates.items() if not isinstance(rate, str)}
    return {"samples_per_s": rates, "most_at": int(max(measured, key=lambda block: measured[block]))}


def samples_per_second(sampler: Sampler, image: torch.Tensor, turns: int) -> int:
    """The median over some turns, after one that sets libraries up; each counts, which waits for the device."""
    times = []
    for turn in range(turns + 1):
        start = time.perf_counter()
        sampler.stream(image, seed=SEED, index=turn).count(2 * sampler.block)
        times.append(time.perf_counter() - start)
    return round(2 * sampler.block / statistics.median(times[1:]))


def tested(deadline: float) -> str:
    """The last line of the tests that need a GPU.

    Raises:
        ValueError: one fails.
    """
    if find_spec("pytest") is None:
        return "left out: pytest is not installed"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *TESTS]
    seconds = max(1.0, deadline - time.monotonic())
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    last = (done.stdout.strip() or done.stderr.strip()).rsplit("\n", 1)[-1]
    if done.returncode:
        raise ValueError(f"pytest exited with {done.returncode}: {last}")
    return last


def mnist(folder: Path, minutes: float, data: str | None, *more: str) -> dict[str, Any]:
    """The run's figures, or how far it came.

    Raises:
        ValueError: no time is left, or the run failed; it has printed the reason.
    """
    if minutes <= 0:
        raise ValueError("the time was over before it began: give more --max-minutes")
    command = [sys.executable, "-m", "benchmarks.published", "run", "--recipe", str(RECIPE), "--out", str(folder)]
    command += ["--methods", "smoothmix", "--sigmas", str(SIGMA), "--max-minutes", str(minutes), *more]
    code = subprocess.run(command + (["--data", data] if data else []), cwd=ROOT).returncode
    run = folder / "smoothmix" / str(SIGMA)
    if code == STOPPED_EARLY:
        return {"finished": False, "kept_in": str(run)}
    if code:
        raise ValueError(f"benchmarks.published exited with {code}")
    return {"finished": True, **{file: read_json(run / file, "run it again") for file in ("metrics.json", "run.json")}}


if __name__ == "__main__":
    sys.exit(main())
