"""Certification speed: ours, ours with float noise, a plain loop, and the Adversarial Robustness Toolbox.

All certify the same images with the same network, n0 and n, in one run on this machine, in turns; each figure is the
median of the turns. Ours runs as the certify stage does: images side by side, one thread each, and so does the same
code with the float noise of before, on a CPU: `ratio_float` is how much longer exact arithmetic takes, the median of
many turns of one block per image of these two alone, with its 95 % interval, as a difference of a few percent drowns
in longer turns. The plain loop and the toolbox get all cores per operation. One JSON line per case.
`make benchmark-setup` installs the toolbox; without it its columns are null.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import binom, norm
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor, nn

from benchmarks import float_noise
from benchmarks.hardware import has_bfloat16
from components.certification.cohen import certifying
from components.certification.sampling import Sampler, Stream, answered
from components.certification.side_by_side import certify_images
from components.model import networks
from components.tools.device import available_cores, use_device

SIGMA, GRID, N0, FAILURE_PROB = 0.5, 255, 100, 0.001
CASES = {"lenet": (1, 28, 28), "resnet20": (3, 32, 32), "resnet110": (3, 32, 32), "small_convnet": (1, 16, 16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["lenet", "resnet20"], help=f"of {', '.join(CASES)}")
    parser.add_argument("--n", type=int, default=4000, help="samples per image (default: %(default)s)")
    parser.add_argument("--images", type=int, default=2, help="images per turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--float-turns", type=int, default=60, help="turns for ratio_float: 0, or at least 6 (default: %(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="run our network compiled")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="default: bfloat16 if the hardware has it")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"unknown case {', '.join(sorted(unknown))}: choose from {', '.join(CASES)}")
    if 0 < options.float_turns < 6:
        parser.error(f"--float-turns is {options.float_turns}: fewer than 6 give no interval")
    for case in options.cases:
        print(json.dumps(measure(case, options)), flush=True)


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """One case's line."""
    device = use_device(threads=available_cores())
    torch.manual_seed(0)
    network = networks.build(case, CASES[case], 10).to(device).eval()
    precision = options.precision or ("bfloat16" if has_bfloat16(device) else "float32")
    steps = torch.randint(GRID + 1, (options.images, *CASES[case]), dtype=torch.int32)
    images = steps.float() / GRID
    sampler = make_sampler(case, network, precision, options.compile)
    plain_network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    contenders: dict[str, Callable[[], object]] = {
        "": lambda: certify_ours(sampler, steps, options.n),
        "plain_": lambda: [certify_plainly(plain_network, image.to(device), options.n) for image in images],
    }
    if toolbox := art_classifier(plain_network, CASES[case], device):
        contenders["art_"] = lambda: toolbox.certify(images.numpy(), options.n, batch_size=1000)
    seconds = in_turns(contenders, options.turns)
    samples = options.images * (N0 + options.n)
    rates = {name: samples / statistics.median(values) for name, values in seconds.items()}
    return {
        "case": case,
        "samples_per_s": round(rates[""]),
        "plain_samples_per_s": round(rates["plain_"]),
        "art_samples_per_s": round(rates["art_"]) if "art_" in rates else None,
        "ratio_plain": round(rates[""] / rates["plain_"], 2),
        **(ratio_to_float_noise(sampler, steps, options.float_turns) if device.type == "cpu" else {}),
        "ratio_art": round(rates[""] / rates["art_"], 2) if "art_" in rates else None,
        "precision": precision,
        "compiled": sampler.compiled,
        **(start_seconds(case, precision) if options.compile else {}),
        "block": sampler.block,
        "cores": available_cores(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else cpu_name(),
        "torch": torch.__version__,
    }


def in_turns(contenders: dict[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """The seconds of each contender in each turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        order = list(contenders) if turn % 2 else list(contenders)[::-1]  # so that none always follows the same one
        for name in order:
            torch.set_num_threads(available_cores())
            begin = time.perf_counter()
            contenders[name]()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio_to_float_noise(sampler: Sampler, steps: Tensor, turns: int) -> dict[str, Any]:
    """How much longer a block in exact arithmetic takes than one with float noise: median, and its 95 % interval by
    order statistics (Hahn & Meeker 1991, section 5.2)."""
    if not turns:
        return {}
    with_float_noise, images, n = FloatNoise(sampler), steps.float() / sampler.grid, sampler.block - N0
    exact_or_float: dict[str, Callable[[], object]] = {
        "exact": lambda: certify_ours(sampler, steps, n),
        "float": lambda: certify_ours(with_float_noise, images, n),
    }
    seconds = in_turns(exact_or_float, turns)
    ratios = sorted(exact / other for exact, other in zip(seconds["exact"], seconds["float"], strict=True))
    outside = int(binom.ppf(0.025, turns, 0.5))
    interval = ratios[outside - 1], ratios[turns - outside]
    return {
        "ratio_float": round(statistics.median(ratios), 3),
        "ratio_float_interval": [round(ratio, 3) for ratio in interval],
    }


def make_sampler(case: str, network: nn.Module, precision: str, compiled: bool) -> Sampler:
    shape: dict[str, Any] = {"image_shape": CASES[case], "num_classes": 10}
    return Sampler(network, SIGMA, grid=GRID, **shape, precision=precision, compiled=compiled)


class FloatNoise(Sampler):
    """A sampler as it is, but for images and noise in float32: what exact arithmetic costs is measured against it."""

    def __init__(self, exact: Sampler) -> None:
        self.__dict__ |= vars(exact)

    def stream(self, image: Tensor, *, seed: int, index: int, **options: Any) -> Stream:
        return Stream(self, image, seed, index, 0, lambda: None)

    @torch.inference_mode()
    def predictions(self, image: Tensor, seed: int, index: int, block: int) -> Tensor:
        start = block * self.block
        key = {"seed": seed, "index": index, "start": start, "stop": start + self.block}
        predictions: Tensor = self._classify(
            self.network, float_noise.noisy_copies(image, SIGMA, **key), self.precision
        )
        return predictions


def start_seconds(case: str, precision: str) -> dict[str, float]:
    """Seconds until a process has the compiled network: the first process on a machine, and a later one."""
    code = (
        "import time; from benchmarks import certification as c; c.use_device(threads=1);"
        f"network = c.networks.build({case!r}, c.CASES[{case!r}], 10); start = time.perf_counter();"
        f"c.make_sampler({case!r}, network, {precision!r}, True); print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"XDG_CACHE_HOME": cache}
        environment.pop("TORCHINDUCTOR_CACHE_DIR", None)  # this process has set it
        times = [
            float(
                subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True).stdout
            )
            for _ in range(2)
        ]
    return {"cold_start_s": round(times[0], 1), "warm_start_s": round(times[1], 1)}


def cpu_name() -> str:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases of torch
    return str(capabilities.get("cpu_name") or platform.machine())


def certify_ours(sampler: Sampler, images: Tensor, n: int) -> list[Any]:
    def certify(image: Tensor, index: int) -> Any:
        procedure = certifying(sampler.sigma, n0=N0, n=n, failure_prob=FAILURE_PROB, bound="two_class")
        return answered(procedure, sampler.stream(image, seed=0, index=index).count)

    workers = 1 if sampler.device.type == "cuda" else available_cores()
    return list(certify_images(enumerate(images), certify, workers=workers))


def certify_plainly(network: nn.Module, image: Tensor, n: int) -> tuple[int, float]:
    """As research code does it: one float image, batches of 1000, float32, counts fetched per batch."""

    def count(num: int) -> np.ndarray:
        counts = np.zeros(10, dtype=int)
        while num:
            batch = image.repeat(size := min(num, 1000), 1, 1, 1)
            with torch.no_grad():
                predictions = network(batch + torch.randn_like(batch) * SIGMA).argmax(1)
            counts += np.bincount(predictions.cpu().numpy(), minlength=10)
            num -= size
        return counts

    selected = int(count(N0).argmax())
    p_lower = proportion_confint(count(n)[selected], n, alpha=2 * FAILURE_PROB, method="beta")[0]
    return (selected, SIGMA * norm.ppf(p_lower)) if p_lower > 0.5 else (-1, 0.0)


def art_classifier(network: nn.Module, shape: tuple[int, ...], device: torch.device) -> Any:
    """The toolbox's smoothed classifier, or None where it is not installed."""
    try:
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
    except ImportError:
        return None
    return PyTorchRandomizedSmoothing(
        network,
        nn.CrossEntropyLoss(),
        shape,
        10,
        device_type="gpu" if device.type == "cuda" else "cpu",
        sample_size=N0,
        scale=SIGMA,
        alpha=FAILURE_PROB,
    )


if __name__ == "__main__":
    main()
