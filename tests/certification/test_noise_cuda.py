"""The GPU's noise is the reference's bit for bit: in Triton's interpreter, which runs the kernel on the CPU."""

import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from components.certification.noise.discrete_normal import discrete_normal
from components.certification.noise.reference import integer_noise, on_unit_scale, uniform
from tests.support.noise_tables import LOST, LOST_LOW, LOST_VALUES, edges_at_draws, losing

ROOT = Path(__file__).parents[2]
KEYS = [
    (0, 0, 0, 1),
    (1, 2, 17, 2),
    (2**63 - 1, 2**32 - 1, 2**32 - 2, 3),
    (2**62 + 12345, 2**31 + 7, 2**33 + 5, 5),
    (5, 2**31, 2**62, 784),
    (2**40, 3, 0, 3073),
]
INTERPRETED = """
import pickle
import sys
import numpy as np, torch, triton
from components.certification.noise.discrete_normal import DiscreteNormal
from components.certification.noise.cuda import QUADS, noisy_copies_cuda
from tests.support.words_kernel import words_kernel
cases, out = pickle.loads(open(sys.argv[1], "rb").read()), []
for (seed, index, start, values), edges in cases:
    quads = -(-values // 4)
    words = torch.empty((2, 4, quads), dtype=torch.int64)
    words_kernel[(2, triton.cdiv(quads, QUADS))](words, seed, index, start, quads, QUADS)
    image = (torch.arange(values, dtype=torch.int32) % 17).view(1, 1, -1)
    normal = DiscreteNormal(1.0, 16, edges)
    copies, lost = noisy_copies_cuda(image, normal, seed=seed, index=index, start=start, stop=start + 2)
    out.append((words.numpy(), copies.numpy(), lost.numpy()))
open(sys.argv[2], "wb").write(pickle.dumps(out))
"""


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Keys, distributions, and what the kernel gives for them."""
    pytest.importorskip("triton", reason="Triton is not installed: the GPU's kernel stays untested")
    cases = [(key, discrete_normal(0.125, 16)) for key in KEYS]
    cases += [(key, discrete_normal(0.5, 255)) for key in KEYS[:5]]
    cases += [(KEYS[0], discrete_normal(0.25, 65535))]
    cases += [(key, edges_at_draws(key[:3], 2, key[3])) for key in KEYS]
    lost = (LOST["seed"], LOST["index"], LOST["start"], LOST_VALUES)
    cases += [(lost, losing(low)) for low in (LOST_LOW - 1, LOST_LOW, LOST_LOW + 1)]
    folder = tmp_path_factory.mktemp("interpreted")
    (folder / "cases").write_bytes(pickle.dumps([(key, normal.edges) for key, normal in cases]))
    subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(folder / "cases"), str(folder / "out")],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        check=True,
        capture_output=True,
    )
    return [(*case, *out) for case, out in zip(cases, pickle.loads((folder / "out").read_bytes()), strict=True)]


@pytest.mark.medium
def test_the_kernel_draws_the_reference_s_bits(interpreted):
    for (seed, index, start, values), _, words, _, _ in interpreted:
        found = words.reshape(2, -1)[:, :values].view(np.uint64) ^ np.uint64(1 << 63)
        assert np.array_equal(found, uniform(seed, index, start, start + 2, values))


@pytest.mark.medium
def test_the_kernel_gives_the_network_the_reference_s_copies_bit_for_bit(interpreted):
    """Also where words meet edges, and where samples are lost."""
    some_lost = []
    for (seed, index, start, values), normal, _, copies, lost in interpreted:
        noise, expected_lost = integer_noise(normal, seed, index, start, start + 2, values)
        sums = np.arange(values) % 17 + noise
        assert np.array_equal(copies.reshape(2, -1), on_unit_scale(sums, 16))
        assert np.array_equal(lost, expected_lost)
        some_lost += lost.tolist()
    assert sum(some_lost) == 2, "of the three last cases, the first two's first samples"


class OnGpu(torch.Tensor):
    """A tensor in memory that says it is on GPU 1."""

    is_cuda = True

    def get_device(self):
        return 1


class Launches:
    """Stands for the kernel: notes the thread's current device at each launch."""

    def __init__(self, current, error=None):
        self.current, self.error, self.devices = current, error, []

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *_):
        self.devices.append(getattr(self.current, "device", 0))
        if self.error:
            raise self.error


@pytest.fixture
def launches(monkeypatch):
    """The kernel's stand-in, and torch's current device of each thread as CUDA keeps it: 0 in a new thread."""
    cuda = pytest.importorskip("components.certification.noise.cuda", reason="Triton is not installed")
    current = threading.local()

    def exchange(device):
        before, current.device = getattr(current, "device", 0), device
        return before

    monkeypatch.setattr(torch.cuda, "_exchange_device", exchange)
    monkeypatch.setattr(torch.cuda, "_maybe_exchange_device", exchange)
    monkeypatch.setattr(cuda, "noisy_kernel", Launches(current))
    return cuda.noisy_kernel


def launch_for_gpu_1():
    from components.certification.noise.cuda import noisy_copies_cuda

    image = torch.zeros(1, 2, 2, dtype=torch.int32).as_subclass(OnGpu)
    noisy_copies_cuda(image, discrete_normal(0.125, 16), seed=1, index=2, start=0, stop=3)


def test_the_kernel_is_launched_on_the_image_s_gpu_from_any_thread(launches):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(launch_for_gpu_1).result()
        after = pool.submit(lambda: getattr(launches.current, "device", 0)).result()
    assert launches.devices == [1]
    assert after == 0, "the thread's device is as it was"


def test_a_kernel_that_cannot_be_kept_on_disk_is_one_line_with_the_remedy(launches):
    launches.error = PermissionError(13, "Permission denied", "/.triton")
    with pytest.raises(OSError, match=r"'/\.triton'.*set TRITON_CACHE_DIR"):
        launch_for_gpu_1()
