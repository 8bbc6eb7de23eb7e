"""What methods compute of all images before an epoch: it is the same after any interruption, and decides what is
drawn."""

import copy
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn

from components.methods import Catrs, Sun2025
from components.training import checkpoint, preparation
from components.training.draws import Draws
from components.training.objectives import OBJECTIVES
from components.training.objectives.catrs import TARGET
from components.training.order import steps_of_epoch
from components.training.preparation import CHANCE, TrainingImages
from components.training.ranks import Ranks
from tests.support.small_training import begin, same_weights, steps_of

CPU = torch.device("cpu")
COPIES = 50


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Six images with COPIES copies each: a preparation of 20 images takes several pieces."""
    monkeypatch.setattr(preparation, "COPIES_PER_PIECE", 6 * COPIES)


@pytest.fixture
def gaussian():
    """Another network of the same kind."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()


def catrs(settings):
    own = Catrs(num_noises=2, attack_steps=1, targets="somewhere", targets_copies=COPIES)
    return replace(settings, method="catrs", catrs=own, augment="crop_flip")


def sun2025(settings):
    """At the epochs 1 and 11 it is decided which images are drawn."""
    own = Sun2025(num_noises=2, selection_epoch=1, least_share=0.3, attack_steps=1, step_size=0.1)
    return replace(settings, method="sun2025", sun2025=own, epochs=13, augment="crop_flip")


def stopped_and_resumed(folder, network, data, settings, finished, **more):
    """A training that was interrupted after so many yields, and how many remained."""
    stopped, resumed = begin(copy.deepcopy(network), settings), begin(copy.deepcopy(network), settings)
    list(islice(steps_of(stopped, data, settings, **more), finished))
    checkpoint.save(folder, "key", stopped.epoch, stopped.step, stopped.state())
    torch.manual_seed(12345)  # whatever else the new process has drawn
    resumed.load_state(checkpoint.load_newest(folder, "key", CPU))
    return resumed, list(steps_of(resumed, data, settings, **more))


def assert_same_training(one, other):
    assert same_weights(one.network, other.network)
    assert [replace(stats, seconds=0) for stats in one.history] == [
        replace(stats, seconds=0) for stats in other.history
    ]
    assert one.per_image.keys() == other.per_image.keys()
    assert all(torch.equal(values, other.per_image[name]) for name, values in one.per_image.items())


@pytest.mark.medium
@pytest.mark.parametrize("finished", [1, 3, 4, 5, 10, 11])
def test_catrs_resumed_at_any_moment_ends_alike_and_asks_for_no_target_twice(
    tmp_path, network, data, settings, gaussian, finished
):
    """Four pieces of six images, then two epochs of six steps."""
    settings = catrs(settings)
    whole = begin(copy.deepcopy(network), settings)
    yields = list(steps_of(whole, data, settings, gaussian=gaussian))
    assert yields == [0] * 4 + 2 * [4, 4, 4, 4, 2, 2]
    resumed, rest = stopped_and_resumed(tmp_path, network, data, settings, finished, gaussian=gaussian)
    assert rest == yields[finished:]
    assert_same_training(whole, resumed)
    torch.testing.assert_close(whole.per_image[TARGET].sum(1), torch.ones(20))


@pytest.mark.medium
@pytest.mark.parametrize("moment", ["before", "selecting", "selected", "after", "reweighing", "reweighed", "last"])
def test_sun2025_resumed_at_any_moment_ends_alike(tmp_path, network, data, settings, moment):
    settings = sun2025(settings)
    whole = begin(copy.deepcopy(network), settings)
    yields = list(steps_of(whole, data, settings))
    steps = [i for i, images in enumerate(yields) if images]
    zeros = [i for i, images in enumerate(yields) if not images]
    second = [i for i in zeros if i > steps[20]]
    assert len(steps) == 13 * 6
    assert zeros[0] == 6, "nothing is computed before epoch 1"
    assert second[0] == steps[11 * 6 - 1] + 1, "and nothing between the epochs 1 and 11"
    finished = {
        "before": 6,
        "selecting": zeros[3],
        "selected": steps[6],
        "after": steps[8],
        "reweighing": second[0] + 1,
        "reweighed": steps[11 * 6],
        "last": steps[-1],
    }[moment]
    resumed, _ = stopped_and_resumed(tmp_path, network, data, settings, finished)
    assert_same_training(whole, resumed)
    assert 0 < (whole.per_image[CHANCE] > 0).sum() < 20


def test_what_is_found_depends_on_the_seed_alone(network, data, settings):
    """Not on torch's global generator, and not on the state that a network was left in."""
    settings = replace(sun2025(settings), epochs=2)
    found = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        training = begin(copy.deepcopy(network), settings)
        torch.manual_seed(noise)
        list(steps_of(training, data, settings, seed=seed))
        found.append(training.per_image[CHANCE])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


# --- counting ----------------------------------------------------------------------------------------------------


class Brighter(nn.Module):
    """Answers 1 where the mean pixel is above one half, else 0."""

    def forward(self, images):
        mean = images.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def test_the_counts_are_those_of_the_noisy_images(settings):
    """Of 2x2 images, the noise of the mean pixel has half the sigma: at a distance of sigma / 2, 84 % are above."""
    pixels = torch.tensor([0, 4, 8, 12], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    images = TrainingImages(pixels, torch.zeros(4, dtype=torch.int64), 16, settings, seed=0, epoch=0)
    found = list(images.count_classes(Brighter(), torch.arange(4), sigma=0.5, copies=10_000, use="here"))
    counts = torch.cat([counts for _, counts, _ in found])
    assert counts.sum(1).tolist() == [10_000] * 4
    torch.testing.assert_close(counts[:, 1] / 10_000, torch.tensor([0.023, 0.159, 0.5, 0.841]), rtol=0, atol=0.015)
    assert [share for _, _, share in found] == [0.25, 0.5, 0.75, 1.0]
    ((_, left, _),) = images.count_classes(Brighter(), torch.tensor([3]), sigma=0.5, copies=10_000, use="here")
    assert torch.equal(left[0], counts[3]), "rows that are left get the noise that they would have got"


def test_the_network_is_asked_in_eval_mode_and_left_in_train_mode(network, data, settings):
    before = copy.deepcopy(network.state_dict())
    network.train()
    images = TrainingImages(*data, 16, settings, seed=0, epoch=0)
    for _ in images.count_classes(network, torch.arange(20), sigma=0.5, copies=3, use="here"):
        assert network.training
        assert torch.is_grad_enabled()
    torch.testing.assert_close(dict(network.state_dict()), dict(before), rtol=0, atol=0)


def test_one_view_of_each_image_is_taken_where_it_is_asked_for(settings):
    """One bright pixel in the middle: a crop moves it, but for one of 81, and a network that looks there misses it."""
    pixels = torch.zeros(30, 1, 9, 9, dtype=torch.uint8)
    pixels[:, 0, 4, 4] = 16
    images = TrainingImages(
        pixels, torch.zeros(30, dtype=torch.int64), 16, replace(settings, augment="crop_flip"), 0, 0
    )
    middle = nn.Sequential(nn.Flatten(), nn.Linear(81, 2))
    with torch.no_grad():
        middle[1].weight.zero_()[1, 40] = 9.0
        middle[1].bias.copy_(torch.tensor([4.0, 0.0]))
    told = {"rows": torch.arange(30), "sigma": 0.01, "copies": 10, "use": "here"}
    plain, views = (
        torch.cat([counts for _, counts, _ in images.count_classes(middle, augment=augment, **told)])
        for augment in (False, True)
    )
    assert (plain[:, 1] == 10).all()
    assert set(views[:, 1].tolist()) <= {0, 10}, "one view for all copies"
    assert (views[:, 1] == 10).sum() < 5


# --- which images an epoch draws ---------------------------------------------------------------------------------


def orders(settings, chance, epochs):
    return [torch.cat(list(steps_of_epoch(len(chance), epoch, settings, 0, CPU, chance))) for epoch in range(epochs)]


def test_images_are_drawn_in_proportion_to_their_chance_and_never_with_chance_0(settings):
    settings = replace(settings, method="gaussian")
    chance = torch.tensor([0.0, 1.0, 2.0, 0.0, 5.0, 0.0] * 4, dtype=torch.float64)
    drawn = orders(settings, chance, 500)
    assert {len(order) for order in drawn} == {24}
    found = torch.cat(drawn).bincount(minlength=24) / (500 * 24)
    assert not found[chance == 0].any()
    torch.testing.assert_close(found, (chance / chance.sum()).float(), rtol=0, atol=0.01)
    assert len(drawn[0].unique()) < 12, "with replacement"
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[1], orders(settings, chance, 2)[1])


def test_what_is_drawn_is_split_into_the_same_steps(settings):
    settings = sun2025(settings)
    chance = torch.ones(20, dtype=torch.float64)
    sizes = [[len(rows) for rows in steps_of_epoch(20, 0, settings, 0, CPU, given)] for given in (None, chance)]
    assert sizes[0] == sizes[1] == [4, 4, 4, 4, 2, 2]


def test_the_objective_gets_the_rows_of_its_step(network, data, settings, monkeypatch):
    """Targets that say which image they belong to; the images say it too."""
    settings = replace(catrs(settings), augment="none", epochs=1)
    pixels = torch.arange(20, dtype=torch.uint8).clamp(max=16).view(20, 1, 1, 1).expand(20, 1, 4, 4).contiguous()
    training = begin(network, settings)
    training.per_image = {TARGET: (torch.arange(20.0).clamp(max=16) / 16)[:, None].expand(20, 3).contiguous()}
    seen = []

    def watched(network, images, labels, *, per_image, **told):
        seen.append((images, per_image[TARGET]))
        return objective(network, images, labels, per_image=per_image, **told)

    objective = OBJECTIVES["catrs"]
    monkeypatch.setitem(OBJECTIVES, "catrs", watched)
    list(steps_of(training, (pixels, data[1]), settings, prepare=False))
    assert len(seen) == 6
    assert all(torch.equal(images[:, 0, 0, 0], target[:, 0]) for images, target in seen)


@pytest.mark.parametrize("method", [catrs, sun2025])
def test_several_processes_are_refused_in_one_line(network, data, settings, method):
    settings = method(settings)
    with pytest.raises(ValueError, match=rf"train\.processes is 2: {settings.method} trains in one process, set it"):
        next(steps_of(begin(network, settings), data, settings, ranks=Ranks(0, 2)))


def test_for_people_a_training_says_how_much_is_prepared(network, data, settings, gaussian):
    settings = catrs(settings)
    training = begin(network, settings)
    said = [training.position(2) for _ in steps_of(training, data, settings, gaussian=gaussian)]
    prepared = [f"epoch 0 of 2, {share}% prepared" for share in ("30.0", "60.0", "90.0", "100.0")]
    assert said[:5] == [*prepared, "epoch 0 of 2, step 1"]


def test_draws_of_the_preparation_are_not_those_of_a_step():
    images = torch.zeros(6, 1, 4, 4)
    draws = [Draws(0, 0, 0, CPU, use=use).normal(2, images) for use in ("step", "target", "selection", "weight")]
    assert len({values.sum().item() for values in draws}) == 4
