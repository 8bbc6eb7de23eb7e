"""The compiled noise: built once per machine with its C++ compiler, checked against the reference, kept on disk."""

import ctypes
import functools
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from components.certification.noise.discrete_normal import DiscreteNormal, discrete_normal
from components.certification.noise.reference import integer_noise, on_unit_scale, uniform
from components.tools.hashing import hash_value

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = [
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
]


def cache_folder() -> Path:
    """Where what is compiled for this machine is kept; made where it is not there yet, for this user alone.

    Raises:
        OSError: it cannot be made.
        RuntimeError: others can write there.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "smoothmix-pipeline"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    require_unwritable_by_others(folder)
    return folder


def require_unwritable_by_others(path: Path) -> None:
    """Raises RuntimeError where another user owns `path` or may write to it: what lies there is run as this user."""
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise RuntimeError(f"{path} belongs to another user: set XDG_CACHE_HOME to a folder of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RuntimeError(f"other users can write to {path}: remove it, or set XDG_CACHE_HOME to a folder of your own")


@functools.cache
def load() -> ctypes.CDLL | None:
    """The library, or None where it cannot be built: one line on stderr then says why."""
    try:
        return _checked(ctypes.CDLL(str(build(SOURCE))))
    except (OSError, RuntimeError) as error:
        print(f"noise is drawn by numpy, about ten times slower than compiled: {error}", file=sys.stderr)
        return None


def build(source: Path) -> Path:
    """The library's file, compiled where it is not there yet.

    Raises:
        RuntimeError: there is no compiler, or it fails; or others can write to the file.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise RuntimeError("no C++ compiler; install g++, or name one in CXX")
    key = hash_value([source.read_text(encoding="utf-8"), FLAGS, compiler, platform.machine(), _cpu_features()])
    path = cache_folder() / f"noise-{key[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / path.name
            command = [compiler, *_supported_flags(), "-shared", "-fPIC", str(source), "-o", str(built)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(f"{compiler} failed: {(run.stderr.strip().splitlines() or ['no message'])[0]}")
            built.chmod(0o700)  # whatever the umask: it is loaded only where others cannot write to it
            built.replace(path)  # several processes may build it: each gives the same file
    require_unwritable_by_others(path)
    return path


def _supported_flags() -> list[str]:
    return FLAGS if platform.machine() in ("x86_64", "AMD64") else [f for f in FLAGS if "vector-width" not in f]


def _cpu_features() -> str:
    """What -march=native depends on, so that a home folder shared by different machines is safe."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))


class Table(ctypes.Structure):
    """The attributes of a `DiscreteNormal` as the library reads them."""

    _fields_ = (
        ("tops", ctypes.c_void_p),
        ("lows", ctypes.c_void_p),
        ("guide", ctypes.c_void_p),
        ("resolution", ctypes.c_int32),
        ("reach", ctypes.c_int32),
    )

    def __init__(self, normal: DiscreteNormal) -> None:
        self.normal = normal  # whose arrays must live as long as this
        pointers = (array.ctypes.data for array in (normal.tops, normal.lows, normal.guide))
        super().__init__(*pointers, normal.resolution, normal.reach)


table = functools.cache(Table)


def noisy_copies(
    library: ctypes.CDLL, image: np.ndarray, normal: DiscreteNormal, seed: int, index: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """See `noise.noisy_copies`: float32 (stop - start, values), bool (stop - start,); from a contiguous int32 image."""
    out, lost = np.empty((stop - start, image.size), dtype=np.float32), np.empty(stop - start, dtype=bool)
    library.noisy_copies(
        ctypes.c_void_p(out.ctypes.data),
        ctypes.c_void_p(lost.ctypes.data),
        ctypes.c_void_p(image.ctypes.data),
        ctypes.c_float(float(np.float32(1) / np.float32(normal.grid))),
        ctypes.byref(table(normal)),
        ctypes.c_uint64(seed),
        ctypes.c_uint32(index),
        ctypes.c_uint64(start),
        ctypes.c_int64(stop - start),
        ctypes.c_int64(image.size),
    )
    return out, lost


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """Refuse a library whose noise is not the reference's, bit for bit."""
    library.noisy_copies.restype = None
    keys = [(2**62 + 12345, 2**31 + 7, 2**32 - 1), (1, 2, 5148495)]  # every half of every word counts
    edges = np.append(np.uint64(0), np.sort(uniform(*keys[1], keys[1][2] + 1, 1003)[0]))
    # Each word of this sample is an edge, and the largest one, which begins with 32 ones, the last edge: it is lost.
    for key, normal in zip(keys, (discrete_normal(0.125, 16), DiscreteNormal(1.0, 16, edges)), strict=True):
        image, stop = np.arange(1003, dtype=np.int32) % 17, key[2] + 3
        out, lost = noisy_copies(library, image, normal, *key, stop)
        noise, expected_lost = integer_noise(normal, *key, stop, image.size)
        if not np.array_equal(out, on_unit_scale(image + noise, normal.grid)) or not np.array_equal(
            lost, expected_lost
        ):
            raise RuntimeError("the compiled noise differs from the reference; report the compiler and its version")
    return library
