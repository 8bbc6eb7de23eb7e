"""The compiled noise is the reference's bit for bit, refused where it is not, and built where none else writes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from components.certification.noise import native, noisy_copies
from components.certification.noise.discrete_normal import discrete_normal
from components.certification.noise.reference import integer_noise, on_unit_scale, uniform
from tests.support.noise_tables import KEYS, LOST, LOST_LOW, LOST_VALUES, SHAPES, edges_at_draws, losing

ROOT = Path(__file__).parents[2]
NORMAL = discrete_normal(0.125, 16)


def test_the_library_is_compiled_here():
    """Else the next tests hold the reference against itself."""
    if native.load() is None:
        pytest.skip("no C++ compiler here: the compiled noise stays untested")


def expected_of(image, normal, seed, index, start, stop):
    noise, lost = integer_noise(normal, seed, index, start, stop, image.numel())
    return on_unit_scale(image.numpy().ravel() + noise, normal.grid), lost


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("sigma", "grid"), [(0.12, 255), (0.1, 16), (1.0, 4080), (0.25, 65535)])
def test_noisy_copies_are_the_reference_s_bit_for_bit(shape, key, sigma, grid):
    seed, index, start = key
    image = torch.randint(grid + 1, shape, generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    normal = discrete_normal(sigma, grid)
    copies, lost = noisy_copies(image, normal, seed=seed, index=index, start=start, stop=start + 5)
    expected, expected_lost = expected_of(image, normal, seed, index, start, start + 5)
    assert (copies.dtype, copies.shape, lost.dtype) == (torch.float32, (5, *shape), torch.bool)
    assert np.array_equal(copies.view(5, -1).numpy(), expected)
    assert np.array_equal(lost.numpy(), expected_lost)


@pytest.mark.parametrize(
    "values", [50, 1030, *(pytest.param(values, marks=pytest.mark.medium) for values in (7, 3072))]
)
@pytest.mark.parametrize("key", KEYS)
def test_where_words_meet_edges_the_lower_words_decide_as_in_the_reference(key, values):
    normal = edges_at_draws(key, 3, values)
    seed, index, start = key
    drawn = uniform(seed, index, start, start + 3, values)
    assert np.isin(drawn, normal.edges).any(), "some draws are edges themselves"
    assert (normal.guide >> np.uint64(31) & np.uint64(1)).any() or values < 50, "and some cells have many edges"
    image = torch.zeros(1, 1, values, dtype=torch.int32)
    copies, lost = noisy_copies(image, normal, seed=seed, index=index, start=start, stop=start + 3)
    assert np.array_equal(copies.view(3, -1).numpy(), expected_of(image, normal, seed, index, start, start + 3)[0])
    assert not lost.any()


@pytest.mark.parametrize("low", [LOST_LOW - 1, LOST_LOW, LOST_LOW + 1])
def test_a_lost_sample_is_the_reference_s(low):
    image = torch.zeros(1, 1, LOST_VALUES, dtype=torch.int32)
    copies, lost = noisy_copies(image, losing(low), **LOST)
    expected, expected_lost = expected_of(image, losing(low), *LOST.values())
    assert np.array_equal(copies.view(1, -1).numpy(), expected)
    assert lost.tolist() == expected_lost.tolist() == [low <= LOST_LOW]


def test_an_image_that_is_not_contiguous_is_read_in_its_own_order():
    image = torch.randint(17, (4, 6, 3), dtype=torch.int32).permute(2, 0, 1)
    copies, _ = noisy_copies(image, NORMAL, seed=1, index=2, start=3, stop=5)
    same = image.clone(memory_format=torch.contiguous_format)
    assert not image.is_contiguous()
    assert torch.equal(copies, noisy_copies(same, NORMAL, seed=1, index=2, start=3, stop=5)[0])


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Nothing is compiled yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def loaded():
    """What native.load answers when asked for the first time."""
    return native.load.__wrapped__()


@pytest.mark.medium
def test_without_a_compiler_numpy_gives_the_same_and_one_line_says_so(own_cache):
    code = (
        "import torch; from components.certification.noise import discrete_normal, noisy_copies;"
        "normal, image = discrete_normal.discrete_normal(0.125, 16), torch.zeros(1, 3, 3, dtype=torch.int32);"
        "copies = [noisy_copies(image, normal, seed=3, index=4, start=0, stop=5)[0] for _ in range(2)];"
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
    here, _ = noisy_copies(torch.zeros(1, 3, 3, dtype=torch.int32), NORMAL, seed=3, index=4, start=0, stop=5)
    assert run.stdout == f"{here.flatten().tolist()}\n"
    (line,) = run.stderr.splitlines()
    assert "drawn by numpy" in line
    assert "no C++ compiler; install g++" in line


def test_a_compiler_that_fails_is_named_in_one_line(own_cache, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "false")
    assert loaded() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "false failed" in line


@pytest.mark.slow  # a compilation each
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("0xCD9E8D57u", "0xCD9E8D59u"),
        ("uint32_t(sample.number >> 32)", "0"),
        ("uint32_t(sample.seed >> 32)", "0"),
        ("none + sample.index", "none"),
        ("(top < words[i])", "(top > words[i])"),
        ("distance = float(int32_t(word ^ (0u - upper)))", "distance = float(int32_t(word >> 1))"),
        ("(upper << (5 + resolution))", "(upper << (4 + resolution))"),
        ("quarter * quads + first", "quarter * (quads - 1) + first"),
        ("value -= table->reach", "value -= table->reach - 1"),
        ("tops[bin] == word && table.lows[bin] <= low", "tops[bin] == word && table.lows[bin] < low"),
        ("| flag)", ")"),
        ("uint32_t(value % quads)", "uint32_t(value % (quads + 1))"),
        ("return open & MANY", "return false"),
        ("lost[s] |= bins[i] > 2u * table->reach", "lost[s] |= bins[i] > 2u * table->reach + 1"),
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


@pytest.mark.medium
@pytest.mark.parametrize("flags", [["-O1"], ["-O3"], ["-O3", "-march=native", "-ffast-math"]])
def test_other_instructions_and_optimisations_give_the_same_integers(own_cache, monkeypatch, flags):
    """Without -march=native there are no wide multiplications: that branch of the source is another."""
    if native.load() is None:
        pytest.skip("no C++ compiler here")
    monkeypatch.setattr(native, "FLAGS", flags)
    assert loaded() is not None


@pytest.mark.medium
def test_a_kept_library_is_not_compiled_again_and_a_damaged_one_not_used(own_cache, monkeypatch, capsys):
    if native.load() is None:
        pytest.skip("no C++ compiler here")
    assert loaded() is not None
    (kept,) = (own_cache / "cache").rglob("noise-*.so")
    assert list(kept.parent.iterdir()) == [kept], "nothing else is left behind"
    before = kept.stat().st_mtime_ns
    assert native.build(native.SOURCE) == kept
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


@pytest.mark.medium
def test_a_library_that_others_can_write_to_is_not_loaded(own_cache, capsys):
    if native.load() is None:
        pytest.skip("no C++ compiler here")
    native.build(native.SOURCE).chmod(0o666)
    assert loaded() is None
    assert "other users can write to" in capsys.readouterr().err


@pytest.mark.medium
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_what_is_compiled_is_this_user_s_whatever_the_umask(own_cache, umask):
    if native.load() is None:
        pytest.skip("no C++ compiler here")
    before = os.umask(umask)
    try:
        assert loaded() is not None
        assert native.build(native.SOURCE).exists()
    finally:
        os.umask(before)
