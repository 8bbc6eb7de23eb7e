"""Preset radii of one image, on classifiers that are known."""

from components.certification.preset_radii import next_look
from tests.support.half_spaces import ByNumber, HalfSpaces, sampler_of, steps
from tests.support.procedures import certify_radii

SIGMA = 0.5
IMAGE = steps(0.5, 0.5)


def at(radius, sigma=SIGMA):
    """A sampler of a classifier that has IMAGE about that distance inside its class 1."""
    return sampler_of(HalfSpaces([1.2, -1.6248], 2.02 * radius + 0.2124), IMAGE, sigma=sigma)


def answering(labels, num_classes=2):
    """A sampler whose network answers to sample i of IMAGE what the list says."""
    return sampler_of(ByNumber(labels, num_classes, IMAGE, SIGMA), IMAGE, num_classes=num_classes)


def run(sampler, radii, **options):
    """certify_radii of IMAGE."""
    plain = {"n0": 100, "max_n": 10_000, "failure_prob": 0.001, "seed": 0, "index": 0}
    return certify_radii(sampler, IMAGE, radii, **plain | options)


def decisions(certificate):
    return [answer.decision for answer in certificate.answers]


def looks(max_n):
    sizes = [next_look(0)]
    while sizes[-1] < max_n:
        sizes.append(next_look(sizes[-1]))
    return sizes


class Recorded:
    """A sampler that keeps which samples were counted."""

    def __init__(self, sampler):
        self.sampler, self.sigma, self.ranges = sampler, sampler.sigma, []

    def stream(self, image, *, seed, index, start=0):
        stream = self.sampler.stream(image, seed=seed, index=index, start=start)
        count = stream.count

        def recording(num):
            if num:
                self.ranges.append((stream.position, stream.position + num))
            return count(num)

        stream.count = recording
        return stream
