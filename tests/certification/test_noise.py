"""Keyed noise: standard normal, independent across everything that keys it, the same bits from every CPU."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from components.certification.noise import native, noisy_copies, reference
from components.certification.noise.reference import (
    PIECE,
    gaussian_noise,
    minus_two_log,
    philox,
)

VALUES = 18
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def normals():
    return gaussian_noise(seed=1, index=2, start=0, stop=12_000, values=VALUES)


# --- the generator -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, words):
    low, high = (int(word, 16) for word in key.split())
    counters = tuple(np.array([int(word, 16)], dtype=np.uint64) for word in counter.split())
    assert [f"{int(word[0]):08x}" for word in philox(counters, low | high << 32)] == words.split()


def test_the_logarithm_is_right_to_float32_over_all_words():
    words = np.unique(np.append(np.linspace(0, 2**32 - 1, 200_001), [1, 2, 3, 2**31 - 1, 2**31, 2**32 - 2]))
    words = words.astype(np.uint64).astype(np.uint32)
    u = ((words.astype(np.float32) + np.float32(0.5)) * np.float32(2**-32)).astype(np.float64)
    exact = -2 * np.log(u)
    assert np.abs(minus_two_log(words) - exact).max() <= 2e-6 * max(1, exact.max()) / 8
    assert np.abs(minus_two_log(words) - exact)[exact < 1].max() < 2e-7
    assert (minus_two_log(words) >= 0).all(), "whose square root is taken"
    assert np.sqrt(minus_two_log(np.zeros(1, dtype=np.uint32)))[0] < 6.77


def test_a_normal_is_box_muller_s_of_its_two_words():
    rng = np.random.default_rng(0)
    radius, angle = rng.integers(0, 2**32, (2, 100_000), dtype=np.uint32)
    first, second = reference.normal_pair(radius, angle)
    u = ((radius.astype(np.float32) + np.float32(0.5)) * np.float32(2**-32)).astype(np.float64)
    length = np.sqrt(-2 * np.log(u))
    within = np.pi / 2 * (angle << np.uint32(2)).view(np.int32) / 2**32
    turned = within + np.pi / 2 * (angle >> np.uint32(30))
    assert first == pytest.approx(length * np.cos(turned), abs=4e-6)
    assert second == pytest.approx(length * np.sin(turned), abs=4e-6)


# --- the distribution --------------------------------------------------------------------------------------------


def test_noise_is_float32_in_the_shape_asked_for(normals):
    assert normals.dtype == np.float32
    assert normals.shape == (12_000, VALUES)


def test_noise_has_the_moments_and_the_distribution_of_a_standard_normal(normals):
    values = normals.astype(np.float64).ravel()
    n = len(values)
    assert abs(values.mean()) < 5 / np.sqrt(n)
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs(stats.skew(values)) < 5 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(values)) < 5 * np.sqrt(24 / n)
    assert stats.kstest(values, "norm").pvalue > 1e-6


def test_each_value_of_a_sample_is_standard_normal(normals):
    for value in normals.T.astype(np.float64):
        assert stats.kstest(value, "norm").pvalue > 1e-6
        assert abs(value.var() - 1) < 6 * np.sqrt(2 / len(value))


def test_the_tails_are_there(normals):
    beyond = (np.abs(normals) > 3.5).sum()
    assert stats.binomtest(int(beyond), normals.size, 2 * stats.norm.sf(3.5)).pvalue > 1e-6


def test_a_sum_of_values_is_normal_too(normals):
    """What a linear classifier sees: a bent joint distribution would show here."""
    weights = np.random.default_rng(0).normal(size=(5, VALUES))
    for row in weights / np.linalg.norm(weights, axis=1, keepdims=True):
        assert stats.kstest(normals.astype(np.float64) @ row, "norm").pvalue > 1e-6


def test_values_and_samples_are_uncorrelated_also_in_their_squares(normals):
    for values in (normals.astype(np.float64), normals.astype(np.float64) ** 2 - 1):
        correlation = np.corrcoef(values.T) - np.eye(VALUES)
        assert np.abs(correlation).max() < 6 / np.sqrt(len(values))
        for lag in (1, 2, 3, 250, PIECE // 5):
            product = (values[lag:] * values[:-lag]).ravel()
            assert abs(product.mean()) < 5 * product.std() / np.sqrt(len(product))


@pytest.mark.parametrize(
    ("seed", "index", "start"),
    [
        (2, 2, 0),
        (1, 3, 0),
        (2, 1, 0),
        (0, 2, 0),
        (1, 0, 0),
        (2**63 - 1, 2, 0),
        (1 + 2**32, 2, 0),
        (1, 2**32 - 1, 0),
        (1, 2, 12_000),
        (1, 2, 2**32),
        (1, 2, 2**40),
    ],
)
def test_other_seeds_images_and_samples_have_unrelated_noise(normals, seed, index, start):
    other = gaussian_noise(seed, index, start, start + len(normals), VALUES)
    product = (other * normals).ravel().astype(np.float64)
    assert abs(product.mean()) < 5 / np.sqrt(len(product))
    assert not np.isin(other[:, 0], normals[:, 0]).sum() > 20, "the first values meet by chance alone"


def test_no_sample_is_met_twice(normals):
    assert len(np.unique(normals, axis=0)) == len(normals)


# --- how it is cut -----------------------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_the_range_it_is_asked_in(normals):
    rng, step = np.random.default_rng(0), PIECE // 5
    ends = [(0, 1), (step - 1, step + 1), (step, 2 * step), (7, 7 + 3 * step)]
    ends += [tuple(sorted(rng.choice(12_000, 2, replace=False))) for _ in range(30)]
    for start, stop in ends:
        assert np.array_equal(gaussian_noise(1, 2, int(start), int(stop), VALUES), normals[start:stop])


SHAPES = [(1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 2, 2), (1, 1, 5), (1, 5, 5), (3, 7, 11), (1, 28, 28), (3, 32, 32)]
KEYS = [
    (0, 0, 0),
    (1, 2, 17),
    (2**63 - 1, 2**32 - 1, 2**32 - 2),
    (2**62 + 12345, 2**31 + 7, 2**33 + 5),
    (7, 2**31, 2**63),
]


def test_the_library_is_compiled_here():
    """Else the next tests hold the reference against itself."""
    if native.load() is None:
        pytest.skip("no C++ compiler here: the compiled noise stays untested")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("seed", "index", "start"), KEYS)
@pytest.mark.parametrize("sigma", [0.12, 1.0])
def test_noisy_copies_are_the_reference_s_bit_for_bit(shape, seed, index, start, sigma):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    copies = noisy_copies(image, sigma, seed=seed, index=index, start=start, stop=start + 5)
    expected = gaussian_noise(seed, index, start, start + 5, image.numel())
    assert copies.dtype == torch.float32
    assert np.array_equal(copies.view(5, -1).numpy(), image.view(1, -1).numpy() + np.float32(sigma) * expected)


def test_an_image_that_is_not_contiguous_is_read_in_its_own_order():
    image = torch.rand(4, 6, 3).permute(2, 0, 1)
    copies = noisy_copies(image, 0.5, seed=1, index=2, start=3, stop=5)
    same = image.clone(memory_format=torch.contiguous_format)
    assert not image.is_contiguous()
    assert torch.equal(copies, noisy_copies(same, 0.5, seed=1, index=2, start=3, stop=5))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Nothing is compiled yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def loaded():
    """What native.load answers when asked for the first time."""
    return native.load.__wrapped__()


def test_without_a_compiler_numpy_gives_the_same_and_one_line_says_so(own_cache):
    code = (
        "import torch; from components.certification.noise import noisy_copies;"
        "copies = [noisy_copies(torch.zeros(1, 3, 3), 0.5, seed=3, index=4, start=0, stop=5) for _ in range(2)];"
        "print(copies[1].flatten().tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"CXX": "no-such-compiler"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = noisy_copies(torch.zeros(1, 3, 3), 0.5, seed=3, index=4, start=0, stop=5)
    assert run.stdout == f"{here.flatten().tolist()}\n"
    (line,) = run.stderr.splitlines()
    assert "drawn by numpy" in line
    assert "no C++ compiler; install g++" in line


def test_a_compiler_that_fails_is_named_in_one_line(own_cache, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "false")
    assert loaded() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "false failed" in line


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("0xCD9E8D57u", "0xCD9E8D59u"),
        ("{uint32_t(j), low, index, high}", "{uint32_t(j), low, index, 0}"),
        ("start + s;", "uint32_t(start + s);"),
        ("key1 = uint32_t(seed >> 32)", "key1 = 0"),
        ("(quadrant & 2u) << 30", "(quadrant & 1u) << 31"),
        ("2.0000714765e-1f", "2.0001e-1f"),
    ],
)
def test_a_library_that_draws_other_noise_is_refused(own_cache, monkeypatch, capsys, right, wrong):
    if native.load() is None:
        pytest.skip("no C++ compiler here")
    assert native.SOURCE.read_text().count(right) == 1
    (own_cache / "noise.cpp").write_text(native.SOURCE.read_text().replace(right, wrong))
    monkeypatch.setattr(native, "SOURCE", own_cache / "noise.cpp")
    assert loaded() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "differs from the reference" in line


def test_a_library_compiled_for_speed_above_all_is_refused(own_cache, monkeypatch, capsys):
    if native.load() is None:
        pytest.skip("no C++ compiler here")
    monkeypatch.setattr(native, "FLAGS", ["-O3", "-march=native", "-ffast-math"])
    assert loaded() is None
    assert "differs from the reference" in capsys.readouterr().err


def test_a_kept_library_is_not_compiled_again_and_a_damaged_one_not_used(own_cache, monkeypatch, capsys):
    if native.load() is None:
        pytest.skip("no C++ compiler here")
    assert loaded() is not None
    (kept,) = (own_cache / "cache").rglob("noise-*.so")
    assert list(kept.parent.iterdir()) == [kept], "nothing else is left behind"
    before = kept.stat().st_mtime_ns
    assert native._build() == kept
    assert kept.stat().st_mtime_ns == before
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache / "other"))
    damaged = native.cache_folder() / kept.name  # elsewhere: a process opens a library of one name but once
    damaged.write_bytes(b"no library")
    assert loaded() is None
    assert "drawn by numpy" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702])
def test_nothing_is_loaded_from_a_folder_where_others_can_write(own_cache, capsys, mode):
    native.cache_folder().chmod(mode)
    assert loaded() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "drawn by numpy" in line
    assert "other users can write to" in line
    assert "XDG_CACHE_HOME" in line


def test_nothing_is_loaded_from_another_user_s_folder(own_cache, monkeypatch, capsys):
    owner = native.cache_folder().stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert loaded() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "belongs to another user" in line


def test_a_library_that_others_can_write_to_is_not_loaded(own_cache, capsys):
    if native.load() is None:
        pytest.skip("no C++ compiler here")
    native._build().chmod(0o666)
    assert loaded() is None
    assert "other users can write to" in capsys.readouterr().err


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_what_is_compiled_is_this_user_s_whatever_the_umask(own_cache, umask):
    if native.load() is None:
        pytest.skip("no C++ compiler here")
    before = os.umask(umask)
    try:
        assert loaded() is not None
        assert native._build().exists()
    finally:
        os.umask(before)


# --- the GPU's kernel --------------------------------------------------------------------------------------------

INTERPRETED = """
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np, torch, triton
from components.certification.noise.cuda import QUADS, noisy_copies_cuda
from tests.support.words_kernel import words_kernel
keys = np.load(sys.argv[1])
out = {}
for i, (seed, index, start, values) in enumerate(keys.tolist()):
    quads = -(-values // 4)
    words = torch.empty((2, 4, quads), dtype=torch.int64)
    words_kernel[(2, triton.cdiv(quads, QUADS))](words, seed, index, start, quads, QUADS)
    image = torch.full((1, 1, values), 0.25)
    out[f"words{i}"] = words.numpy()
    out[f"copies{i}"] = noisy_copies_cuda(image, 0.5, seed=seed, index=index, start=start, stop=start + 2).numpy()
np.savez(sys.argv[2], **out)
"""


def test_the_gpu_s_kernel_draws_the_same_words_and_within_rounding_the_same_normals(tmp_path):
    """In Triton's interpreter, which runs the kernel on the CPU."""
    pytest.importorskip("triton", reason="Triton is not installed: the GPU's kernel stays untested")
    sizes = [1, 2, 3, 5, 784, 3073]
    keys = [(*key, sizes[i % len(sizes)]) for i, key in enumerate([*KEYS[:4], (5, 2**31, 2**62), (2**40, 3, 0)])]
    np.save(tmp_path / "keys.npy", np.array(keys, dtype=np.int64))
    subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(tmp_path / "keys.npy"), str(tmp_path / "out.npz")],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        check=True,
        capture_output=True,
    )
    out = np.load(tmp_path / "out.npz")
    for i, (seed, index, start, values) in enumerate(keys):
        quads, samples = np.arange(-(-values // 4), dtype=np.uint64), np.array([start, start + 1], dtype=np.uint64)
        counter = (quads[None], samples[:, None] & reference.MASK, np.uint64(index), samples[:, None] >> np.uint64(32))
        assert np.array_equal(out[f"words{i}"], np.stack(philox(counter, seed), axis=1))
        expected = 0.25 + 0.5 * gaussian_noise(seed, index, start, start + 2, values)
        assert np.abs(out[f"copies{i}"].reshape(2, values) - expected).max() < 1e-6


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

    noisy_copies_cuda(torch.zeros(1, 2, 2).as_subclass(OnGpu), 0.5, seed=1, index=2, start=0, stop=3)


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
