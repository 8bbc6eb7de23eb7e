"""The sampler: what the network is shown, and counts that depend on nothing but the samples they are of."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from components.certification import sampling
from components.certification.noise import noisy_copies
from components.certification.noise.discrete_normal import discrete_normal
from components.certification.rows import common_facts
from components.certification.sampling import BLOCK, Sampler, block_size
from components.model import networks
from tests.support.half_spaces import GRID, ByNumber, HalfSpaces, four_classes, random_images, sampler_of

SIGMA = 0.5
SHAPE = (1, 4, 4)


class Recording(nn.Module):
    """Keeps what it is given; answers the given logits."""

    def __init__(self, logits=(1.0, 0.0)):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits), requires_grad=False)
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        return self.logits.expand(len(images), -1)


@pytest.fixture(scope="module")
def image():
    return random_images(*SHAPE)


@pytest.fixture(scope="module")
def sampler():
    return four_classes(SHAPE, SIGMA)


def stream(sampler, image, start=0, seed=1, index=2):
    return sampler.stream(image, seed=seed, index=index, start=start)


# --- what the network is shown -----------------------------------------------------------------------------------


def test_the_network_sees_whole_blocks_of_the_image_s_own_noise_whatever_is_asked(image):
    for start, nums in [(0, [1]), (0, [100, 700]), (249, [1, 1]), (500, [250, 251]), (777, [3])]:
        network = Recording()
        counting = stream(sampler_of(network, image), image, start)
        for num in nums:
            counting.count(num)
        first, last = start // 250, (start + sum(nums) - 1) // 250
        normal = discrete_normal(SIGMA, GRID)
        expected = [
            noisy_copies(image, normal, seed=1, index=2, start=250 * block, stop=250 * block + 250)[0]
            for block in range(first, last + 1)
        ]
        assert len(network.seen) == len(expected), "no block is computed twice, none ahead"
        assert all(torch.equal(seen, block) for seen, block in zip(network.seen, expected, strict=True))


def test_the_network_sees_the_image_plus_noise_of_the_asked_sigma_on_the_grid(image):
    network = Recording()
    stream(sampler_of(network, image, sigma=0.25), image).count(5000)
    seen = torch.cat(network.seen)
    assert seen.dtype == torch.float32
    assert torch.equal(seen * GRID, (seen * GRID).round())
    noise = seen - image / GRID
    assert abs(noise.std() - 0.25) < 0.005
    assert abs(noise.mean()) < 0.005


def test_in_bfloat16_the_network_alone_is_less_precise(image):
    """Rounding image + noise before the network sees them would depend on the image, and break the theorem."""
    inside, network = [], nn.Sequential(Recording(), nn.Flatten(), nn.Linear(2, 2))
    network[2].register_forward_hook(lambda _module, _inputs, output: inside.append(output.dtype))
    plain, reduced = (sampler_of(network, image, precision=precision) for precision in ("float32", "bfloat16"))
    for asked in (plain, reduced):
        stream(asked, image).count(1)
    assert inside == [torch.float32, torch.bfloat16]
    assert network[0].seen[1].dtype == torch.float32
    assert torch.equal(network[0].seen[0], network[0].seen[1])


def test_the_network_is_in_eval_mode_and_records_no_gradient(image):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 2)).train()
    outputs = []
    network.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    first, second = (stream(sampler_of(network, image), image).count(500) for _ in range(2))
    assert np.array_equal(first, second)
    assert not any(output.requires_grad for output in outputs)


def test_blocks_bound_the_memory():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert block_size(cpu, (1, 4, 4)) == block_size(cpu, (3, 32, 32)) == BLOCK["cpu"]
    assert block_size(cuda, (3, 32, 32)) == BLOCK["cuda"]
    assert block_size(cpu, (3, 64, 64)) == BLOCK["cpu"] // 4
    assert block_size(cuda, (3, 224, 224)) == BLOCK["cuda"] * 3072 // (3 * 224 * 224)
    assert block_size(cpu, (3, 10_000, 10_000)) == 1


@pytest.mark.parametrize("block", [1, 7, 100, 1001])
def test_counts_are_the_same_bit_for_bit_whatever_the_block(image, block):
    """Of a network that does not round: the sums of a few steps of the grid are exact."""
    weights = [1.0, -2.0, 3.0, 0.5] * 4
    expected = stream(sampler_of(HalfSpaces(weights, -4.0), image), image, start=3).count(1300)
    sampler = sampler_of(HalfSpaces(weights, -4.0), image, block=block)
    assert common_facts(sampler)["block"] == block
    assert np.array_equal(stream(sampler, image, start=3).count(1300), expected)
    assert (expected > 0).all(), "both classes, else this proves nothing"


class Largest(TorchDispatchMode):
    """The most values that a tensor made meanwhile has."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_memory_does_not_grow_with_the_number_of_samples(sampler, image):
    largest = []
    for num in (250, 250 * 40 + 1):
        with Largest() as seen:
            stream(sampler, image).count(num)
        largest.append(seen.values)
    assert largest[0] == largest[1] >= 250 * 16


# --- counts ------------------------------------------------------------------------------------------------------


def test_counts_say_how_often_each_class_wins(image):
    labels = np.random.default_rng(0).integers(0, 3, 1300)
    sampler = sampler_of(ByNumber(labels, 5, image, SIGMA, seed=1, index=2), image, num_classes=5)
    counts = stream(sampler, image).count(1300)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, np.bincount(labels, minlength=5))


def test_each_sample_is_counted_once_and_in_order(image):
    """A network that names the samples: sample i is of class i."""
    sampler = sampler_of(ByNumber(range(700), 700, image, SIGMA, seed=1, index=2), image, num_classes=700)
    counting, position = stream(sampler, image), 0
    for num in (0, 1, 100, 149, 250, 0, 199):
        counts = counting.count(num)
        assert np.flatnonzero(counts).tolist() == list(range(position, position + num))
        assert counts.max(initial=0) <= 1
        position += num
        assert counting.position == position


def test_counts_do_not_depend_on_how_they_are_asked_for(sampler, image):
    whole = stream(sampler, image).count(1300)
    assert (whole > 0).sum() > 1, "several classes, else this proves nothing"
    assert whole.sum() == 1300
    rng = np.random.default_rng(0)
    for _ in range(10):
        cuts = np.diff([0, *np.sort(rng.choice(1300, 6)), 1300])
        counting = stream(sampler, image)
        assert np.array_equal(sum(counting.count(int(num)) for num in cuts), whole)


@pytest.mark.parametrize("start", [1, 100, 249, 250, 251, 500, 999])
def test_a_stream_that_starts_later_gives_what_one_from_the_start_gives_there(sampler, image, start):
    counting = stream(sampler, image)
    counting.count(start)
    late = stream(sampler, image, start)
    for num in (1, 200, 260):
        assert np.array_equal(late.count(num), counting.count(num))


def test_counts_depend_on_no_other_image_and_on_the_seed_and_number_alone(sampler, image):
    alone = stream(sampler, image).count(900)
    mine, other = stream(sampler, image), stream(sampler, GRID - image, index=3)
    turns = [(mine.count(300), other.count(70)) for _ in range(3)]
    assert np.array_equal(sum(now for now, _ in turns), alone)
    for key in ({"seed": 2}, {"index": 3}):
        assert not np.array_equal(stream(sampler, image, **key).count(900), alone)


# --- compiling ---------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    """Which way it goes depends on the values: no graph holds it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 2)

    def forward(self, images):
        return self.linear(images.flatten(1)) if images.sum() > 0 else self.linear(-images.flatten(1))


@pytest.mark.medium
def test_a_network_that_cannot_be_compiled_runs_uncompiled_and_one_line_says_so(image, capsys):
    network = Branching()
    sampler = Sampler(network, SIGMA, grid=GRID, image_shape=SHAPE, num_classes=2, compiled=True)
    assert not sampler.compiled
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the network runs uncompiled, as it cannot be compiled: ")
    assert np.array_equal(stream(sampler, image).count(600), stream(sampler_of(network, image), image).count(600))


@pytest.mark.slow
def test_a_compiled_network_gives_the_classes_of_the_plain_one(sampler, image, capsys, tmp_path, monkeypatch):
    """But where two logits are as good as equal."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiled = Sampler(sampler.network, SIGMA, grid=GRID, image_shape=SHAPE, num_classes=4, compiled=True)
    assert compiled.compiled
    assert "network compiled in" in capsys.readouterr().err
    assert np.abs(stream(compiled, image).count(5000) - stream(sampler, image).count(5000)).max() <= 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_network_has_its_own_weights_whatever_was_compiled_before_it(precision, tmp_path, monkeypatch):
    """Compiled weights are constants, and torch shares compiled code between networks of one form: it tells them apart
    only where the setting is in force while it traces, which as one of torch.compile's `options` it is not."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    shape, facts = (1, 16, 16), {"grid": GRID, "num_classes": 10, "precision": precision}
    image = random_images(*shape)
    right, compiled = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        network = networks.build("small_convnet", shape, 10)
        with torch.no_grad():
            network[-1].weight *= 20  # the noise, not the bias, decides
        plain = Sampler(network, SIGMA, image_shape=shape, **facts)
        right.append(stream(plain, image).count(1000))
        if seed == 3:
            torch._dynamo.reset()  # as in a later process: what is compiled comes from the disk
        compiled.append(Sampler(network, SIGMA, image_shape=shape, **facts, compiled=True))
        assert compiled[-1].compiled
    for sampler, counts in zip(compiled, right, strict=True):
        assert np.abs(stream(sampler, image).count(1000) - counts).sum() <= 20
    assert min(np.abs(right[i] - right[j]).sum() for i in range(4) for j in range(i)) > 200


def test_nothing_is_compiled_unless_asked(sampler):
    assert not sampler.compiled


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, GRID + 1, 2**31 - 1, -(2**31)])
def test_images_that_leave_the_steps_of_the_grid_are_refused(sampler, image, bad):
    broken = image.clone()
    broken[0, 1, 1] = bad
    with pytest.raises(ValueError, match=r"image 5 has values outside \[0, 256\]"):
        stream(sampler, broken, index=5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8])
def test_images_that_are_not_int32_are_refused(sampler, image, dtype):
    """Floats may lie off the grid, and the compiled noise would read other bytes as int32."""
    with pytest.raises(ValueError, match=r"image 5 is .*: int32, in steps of the grid, is needed"):
        stream(sampler, image.to(dtype), index=5)


def test_samples_that_are_lost_are_missing_from_the_counts_whatever_the_network_answers(image, monkeypatch):
    def losing(*arguments, start, **options):
        copies, lost = noisy_copies(*arguments, start=start, **options)
        number = torch.arange(start, start + len(copies))
        return copies, lost | (number % 100 == 7)

    monkeypatch.setattr(sampling, "noisy_copies", losing)
    labels = np.zeros(1000, dtype=int)
    labels[[7, 207]] = -1, 1
    sampler = sampler_of(ByNumber(labels, 2, image, SIGMA, seed=1, index=2), image)
    assert stream(sampler, image).count(1000).tolist() == [990, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_logits_that_are_not_finite_are_refused(image, bad, precision):
    sampler = sampler_of(Recording((1.0, bad)), image, precision=precision)
    with pytest.raises(FloatingPointError, match="image 3: a logit is not finite"):
        stream(sampler, image, index=3).count(1)


@pytest.mark.parametrize("broken", [0, 249, 250, 777, 999])
def test_a_single_logit_that_is_not_finite_among_many_samples_is_refused(image, broken):
    labels = np.zeros(1000, dtype=int)
    labels[broken] = -1
    sampler = sampler_of(ByNumber(labels, 2, image, SIGMA, seed=1, index=2), image)
    counting = stream(sampler, image)
    assert counting.count(broken).tolist() == [broken, 0], "what came before it stands"
    with pytest.raises(FloatingPointError, match="not finite"):
        counting.count(1000 - broken)


def test_a_network_of_more_classes_than_it_is_asked_about_is_refused(image):
    """Samples that fall to a class that is not counted would be missing from n."""
    sampler = sampler_of(Recording((0.0, 0.0, 1.0)), image, num_classes=2)
    with pytest.raises(ValueError, match="image 2: the network knows more than 2 classes"):
        stream(sampler, image).count(10)


def test_logits_of_a_half_space_that_overflow_bfloat16_never_do_so_silently(image):
    """float32's range is bfloat16's: what overflows there is caught like any other."""
    sampler = sampler_of(HalfSpaces([3e38] * 16, 3e38), image, precision="bfloat16")
    with pytest.raises(FloatingPointError, match="not finite"):
        stream(sampler, image).count(250)
