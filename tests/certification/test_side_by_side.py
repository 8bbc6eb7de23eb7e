"""How certifying many images ends before all are done: what is finished is kept, what takes long is given up."""

import time

import pytest

from components.certification.side_by_side import GivenUp, Stopping, certify_images
from tests.support.half_spaces import HalfSpaces, sampler_of, steps

IMAGE = steps(0.5, 0.5)
IMAGES = [(index, IMAGE) for index in range(50)]


class Bell:
    """Asks to stop, from when it is rung."""

    def __init__(self):
        self.rung = False

    def __call__(self):
        return self.rung


@pytest.mark.medium
def test_images_in_flight_at_the_deadline_are_finished_and_kept():
    begun, deadline = [], time.monotonic() + 0.3

    def certify(image, index):
        begun.append(index)
        time.sleep(0.05 if index else 0.6)  # the first is still running at the deadline, others are done before it
        return index

    results = list(certify_images(IMAGES, certify, workers=2, stopping=Stopping(deadline)))
    assert results == [(index, index) for index in sorted(begun)], "no image was computed for nothing"
    assert 1 < len(results) < 10


def test_a_deadline_that_is_over_leaves_one_image_so_that_repeating_gets_on():
    results = certify_images(IMAGES, lambda image, index: index, workers=2, stopping=Stopping(time.monotonic() - 1))
    assert list(results) == [(0, 0)]


def test_on_request_nothing_is_begun_and_what_takes_longer_than_the_grace_period_is_given_up():
    bell, begun = Bell(), []
    stopping = Stopping(requested=bell, grace_seconds=0.3)
    sampler = sampler_of(HalfSpaces([1.0, 1.0], -0.5), IMAGE)

    def certify(image, index):
        begun.append(index)
        if index == 3:
            bell.rung = True
            time.sleep(0.1)  # finished within the grace period
        if index != 2:
            return index
        stream = sampler.stream(image, seed=1, index=index, before_block=stopping.give_up_in_time)
        return [stream.count(1000) for _ in range(10**6)]  # hours

    start = time.monotonic()
    results = list(certify_images(IMAGES, certify, workers=2, stopping=stopping))
    assert time.monotonic() - start < 5
    assert results == [(0, 0), (1, 1), (3, 3)]
    assert sorted(begun) == [0, 1, 2, 3]


def test_a_request_before_the_start_begins_at_most_one_image():
    bell = Bell()
    bell.rung = True
    results = certify_images(IMAGES, lambda image, index: index, workers=2, stopping=Stopping(requested=bell))
    assert list(results) == [(0, 0)]


def test_the_grace_period_is_counted_from_the_request():
    bell = Bell()
    stopping = Stopping(requested=bell, grace_seconds=0.1)
    stopping.give_up_in_time()
    time.sleep(0.15)
    bell.rung = True
    stopping.give_up_in_time()
    time.sleep(0.15)
    with pytest.raises(GivenUp):
        stopping.give_up_in_time()
