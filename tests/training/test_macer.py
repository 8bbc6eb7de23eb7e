"""MACER against a second statement of it, and where its quantiles are not finite."""

import copy
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from torch import nn

from components.methods import Macer
from components.training.objectives import OBJECTIVES
from tests.support.training_steps import (
    CLASSES,
    IMAGES,
    NOISES,
    SIGMA,
    Drawn,
    assert_same_training_step,
    logits_by_pair,
    softmax,
    step_as,
    step_of,
    tiny_case,
)

MISTAKES = [
    "divided by the number of correct images",
    "hinge kept beyond the margin",
    "wrongly classified images counted",
    "radius instead of the hinge's half sigma",
    "inverse temperature in the first term",
    "no inverse temperature",
    "logarithm before the mean",
    "no gradient through the runner-up",
    "a forward for each noise",
]


class Replay(nn.Module):
    """A network whose logits (m * B, K) are its only parameter."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits.flatten(0, 1).clone())

    def forward(self, images):
        return self.logits


def method_settings(settings, **changes):
    own = {"num_noises": NOISES, "weight": 6.0, "margin": 3.5, "inverse_temperature": 2.0, "deferred": False} | changes
    return replace(settings, macer=Macer(**own), decay_every=5)


def macer_case():
    """The network answers 0 everywhere, with more or less confidence: all but one image are classified right."""
    network, images, _, noise = tiny_case()
    return network, images, torch.tensor([0, 0, 0, 0, 0, 1]), noise


class Quantile(torch.autograd.Function):
    """Phi^-1 from the standard library, and its derivative 1 / phi(Phi^-1(p))."""

    @staticmethod
    def forward(context, probability):
        value = NormalDist().inv_cdf(probability.item())
        context.slope = 1 / NormalDist().pdf(value)
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    def backward(context, gradient):
        return context.slope * gradient


def as_specified(network, images, labels, noise, own, mistake=None):
    """The two sums over images, divided by their number; and of each image what the hinge made of it."""
    if mistake == "a forward for each noise":
        single = [logits_by_pair(network, images, noise[i : i + 1]) for i in range(NOISES)]
        logits = {(i, b): single[i][0, b] for i in range(NOISES) for b in range(IMAGES)}
    else:
        logits = logits_by_pair(network, images, noise)
    beta = 1 if mistake == "no inverse temperature" else own.inverse_temperature
    natural, robust, kinds = 0.0, 0.0, []
    for b in range(IMAGES):
        first_factor = beta if mistake == "inverse temperature in the first term" else 1
        answers = [softmax(first_factor * logits[i, b])[labels[b]] for i in range(NOISES)]
        if mistake == "logarithm before the mean":
            natural += sum(-(answer + 1e-10).log() for answer in answers) / NOISES
        else:
            natural += -(sum(answers) / NOISES + 1e-10).log()
        votes = sum(softmax(beta * logits[i, b]) for i in range(NOISES)) / NOISES
        best, runner_up = votes.argsort(descending=True)[:2]
        p1, p2 = votes[best], votes[runner_up]
        if mistake == "no gradient through the runner-up":
            p2 = p2.detach()
        robustness = Quantile.apply(p1) - Quantile.apply(p2)
        kind = "wrong" if best != labels[b] else "robust" if robustness > own.margin else "counted"
        kinds.append(kind)
        if (
            kind == "counted"
            or (kind == "robust" and mistake == "hinge kept beyond the margin")
            or (kind == "wrong" and mistake == "wrongly classified images counted")
        ):
            robust += own.margin - robustness
    factor = SIGMA if mistake == "radius instead of the hinge's half sigma" else SIGMA / 2
    right = IMAGES - kinds.count("wrong")
    divisor = right if mistake == "divided by the number of correct images" else IMAGES
    return natural / IMAGES + own.weight * factor * robust / divisor, kinds


@pytest.mark.parametrize(
    "changes", [{}, {"weight": 16.0, "inverse_temperature": 3.0, "margin": 5.0}, {"margin": 2.0}], ids=str
)
def test_it_is_the_specified_loss_with_its_gradients_and_batch_statistics(settings, changes):
    case, settings = macer_case(), method_settings(settings, **changes)
    ours, loss, logits = step_of("macer", case, settings, Drawn(case[3]))
    theirs, expected, kinds = step_as(as_specified, case, settings.macer)
    assert set(kinds) == {"wrong", "robust", "counted"}, "the case must hold images of every kind"
    assert logits.shape == (NOISES, IMAGES, CLASSES)
    assert_same_training_step(ours, loss, theirs, expected)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_notices(settings, mistake):
    case, settings = macer_case(), method_settings(settings)
    ours, loss, _ = step_of("macer", case, settings, Drawn(case[3]))
    theirs, wrong, _ = step_as(as_specified, case, settings.macer, mistake)
    with pytest.raises(AssertionError):
        assert_same_training_step(ours, loss, theirs, wrong)


@pytest.mark.parametrize("noises", [1, NOISES])
def test_with_weight_0_it_is_the_log_loss_of_the_mean_probability(settings, noises):
    case, settings = macer_case(), method_settings(settings, num_noises=noises, weight=0.0)
    network, images, labels, noise = copy.deepcopy(case)
    ours, loss, _ = step_of("macer", case, settings, Drawn(noise[:noises]))
    logits = network((images + SIGMA * noise[:noises]).flatten(0, 1)).unflatten(0, (noises, IMAGES))
    expected = nn.functional.nll_loss((logits.softmax(-1).mean(0) + 1e-10).log(), labels)
    expected.backward()
    assert_same_training_step(ours, loss, network, expected)


def test_deferred_the_hinge_waits_until_the_first_epoch_after_decay_every(settings):
    case = macer_case()
    deferred, never, always = (
        method_settings(settings, **changes) for changes in ({"deferred": True}, {"weight": 0.0}, {})
    )

    def loss(settings, epoch):
        return step_of("macer", case, settings, Drawn(case[3]), epoch=epoch)[1].item()

    assert loss(never, 0) != loss(always, 0)
    for epoch in (0, 4, 5):
        assert loss(deferred, epoch) == loss(never, epoch)
    for epoch in (6, 7, 60):
        assert loss(deferred, epoch) == loss(always, epoch)


def test_what_counts_as_right_is_the_vote_at_the_inverse_temperature(settings):
    """Two noises lean to class 0, one is certain of class 1: the mean probability says 1, the vote says 0."""
    logits = torch.tensor([[0.4, 0.0, -9.0], [0.4, 0.0, -9.0], [0.0, 9.0, -9.0]])[:, None]
    assert logits.softmax(-1).mean(0).argmax() == 1
    sharp = method_settings(settings, inverse_temperature=16.0, margin=8.0)
    votes = (16 * logits.double()).softmax(-1).mean(0)[0]
    robustness = NormalDist().inv_cdf(votes[0].item()) - NormalDist().inv_cdf(votes[1].item())
    hinges = [replayed(logits, label, sharp)[0] - replayed(logits, label, weightless(sharp))[0] for label in (0, 1)]
    assert hinges == pytest.approx([6.0 * SIGMA / 2 * (8.0 - robustness), 0.0], rel=1e-4)


def weightless(settings):
    return replace(settings, macer=replace(settings.macer, weight=0.0))


def replayed(logits, labels, settings):
    """Loss and gradient with respect to logits (m, B, K)."""
    network, images = Replay(logits), torch.zeros(logits.shape[1], 1, 1, 1)
    labels = torch.tensor(labels).expand(len(images))
    noise = torch.zeros(len(logits), *images.shape)
    told = {"sigma": SIGMA, "settings": settings, "epoch": 0, "draws": Drawn(noise), "own": settings.macer}
    loss, _ = OBJECTIVES["macer"](network, images, labels, **told)
    loss.backward()
    return loss.item(), network.logits.grad.view_as(logits)


@pytest.mark.parametrize("margin", [8.0, 1e4])
@pytest.mark.parametrize("gap", [1.2, 5.0, 6.3, 1e2, 1e4, 1e30], ids=lambda gap: f"logits {gap:g} apart")
def test_an_answer_without_a_finite_quantile_adds_nothing_and_leaves_no_nan(settings, gap, margin):
    """p1 is 1 and p2 next to nothing or 0 for the first image of two; the second keeps its hinge."""
    settings = method_settings(settings, inverse_temperature=16.0, margin=margin)
    lost = torch.tensor([gap, 0.0, 0.0])
    kept = torch.tensor([[0.4, 0.3, 0.0], [0.1, 0.2, 0.0], [0.3, 0.0, 0.1]])
    logits = torch.stack([lost.expand(3, 3), kept], dim=1)
    loss, gradient = replayed(logits, 0, settings)
    without, gradient_without = replayed(logits, 0, weightless(settings))
    alone, gradient_alone = replayed(kept[:, None], 0, settings)
    alone_without, gradient_alone_without = replayed(kept[:, None], 0, weightless(settings))
    assert gradient.isfinite().all()
    assert alone > alone_without
    assert loss - without == pytest.approx((alone - alone_without) / 2, rel=1e-4)
    hinge_gradient, alone_gradient = gradient - gradient_without, gradient_alone - gradient_alone_without
    torch.testing.assert_close(hinge_gradient[:, 0], torch.zeros(3, 3), rtol=0, atol=0)
    torch.testing.assert_close(hinge_gradient[:, 1], alone_gradient[:, 0] / 2, rtol=1e-4, atol=1e-6)


def test_an_answer_next_to_certain_leaves_no_nan(settings):
    """p1 from 1 - 1e-6 over its last values below 1 to 1: the quantile's slope is largest before it is infinite."""
    settings = method_settings(settings, inverse_temperature=16.0, margin=1e4)
    losses = []
    for gap in torch.arange(0.85, 1.2, 0.002):
        loss, gradient = replayed(torch.tensor([1.0, 0.0, 0.0]).mul(gap).expand(3, 1, 3), 0, settings)
        assert gradient.isfinite().all()
        losses.append(loss)
    assert min(losses) < 1, "some are certain"
    assert max(losses) > 1000, "some are not"
