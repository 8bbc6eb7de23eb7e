"""The service around the classifier: real HTTP, real sampling, a network of random weights."""

import concurrent.futures
import dataclasses
import json
import re
import time

import pytest
import torch

from components.serving import requests as requests_module
from components.serving.app import HOW, ServiceLimits, create_app
from components.serving.requests import bytes_needed
from tests.support.serving import ANSWER, IMAGES, SHAPE, ask, running


def test_the_service_answers_as_the_classifier_does(client):
    answer = ask(client, params={"n": 1000, "radius": None})
    assert answer.status_code == 200
    (prediction,) = answer.json()["predictions"]
    assert set(prediction) == set(ANSWER)
    assert prediction["n"] == 1000
    assert answer.json()["params"] == {"n": 1000, "failure_prob": 0.001, "radius": None}
    assert answer.json().items() >= {"model": "trial", "version": "3", **HOW}.items()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[" * 50_000,
        b"[]",
        b"{}",
        b'{"inputs": 1}',
        b'{"inputs": "x"}',
        b'{"inputs": null}',
        b'{"inputs": {}}',
        b'{"inputs": [[1, 2], [3]]}',
        b'{"inputs": [[[["a"]]]]}',
        b'{"inputs": [[[[true]]]]}',
        b'{"inputs": [[[[1' + b"0" * 400 + b"]]]]}",
        b'{"inputs": [[[[0.5]]]]}',
        b'{"inputs": [], "instances": []}',
        json.dumps({"inputs": (IMAGES * 255).tolist()}).encode(),
        json.dumps({"inputs": (IMAGES * float("nan")).tolist()}).encode(),
        json.dumps({"inputs": IMAGES.tolist(), "params": [1]}).encode(),
        json.dumps({"inputs": IMAGES.tolist(), "params": {"n": "many"}}).encode(),
        json.dumps({"inputs": IMAGES.tolist(), "params": {"n": 10**30}}).encode(),
        json.dumps({"inputs": IMAGES.tolist(), "params": {"n": 5}}).encode(),
        json.dumps({"inputs": IMAGES.tolist(), "params": {"sigma": 1.0}}).encode(),
        json.dumps({"inputs": IMAGES.tolist(), "params": {"radius": 100}}).encode(),
    ],
)
def test_bad_input_gets_400_and_one_sentence(client, lines, body):
    answer = client.post("/invocations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert list(answer.json()) == ["message"]
    assert "\n" not in answer.json()["message"]
    (line,) = lines
    assert line["status"] == 400
    assert line["message"] == answer.json()["message"]


def test_other_requests_are_refused_for_what_they_are(client):
    large = client.post("/invocations", content=b" " * 100_001, headers={"content-type": "application/json"})
    assert (large.status_code, large.json()) == (
        413,
        {"message": "the request is larger than the limit of 100000 bytes"},
    )
    chunks = client.post(
        "/invocations", content=(b" " * 10_000 for _ in range(11)), headers={"content-type": "application/json"}
    )
    assert chunks.status_code == 413
    assert client.post("/invocations", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.get("/invocations").status_code == 405
    assert client.get("/health").json() == {"status": "ready", "model": "trial", "version": "3", "arithmetic": "exact"}


def test_an_error_of_the_service_is_500_without_its_reason(client, classifier, lines, monkeypatch):
    monkeypatch.setattr(classifier.sampler, "precision", None)
    monkeypatch.setattr(classifier.sampler, "_classify", lambda *_: torch.full((250,), -1))
    answer = ask(client)
    assert (answer.status_code, answer.json()) == (500, {"message": "the service failed to answer: see its log"})
    assert "a logit is not finite" in lines[0]["reason"]


def test_operators_see_abstentions_and_radii(classifier):
    with running(create_app(classifier)) as client:
        ask(client)
        ask(client, params={"n": 3})
        ask(client, params={"radius": 0.125})
        text = client.get("/metrics").text
    assert 'smoothed_requests_total{status="200"} 2.0' in text
    assert 'smoothed_requests_total{status="400"} 1.0' in text
    for procedure in ("reference", "preset"):
        counts = re.findall(
            f'smoothed_answers_total{{answer="(?:certified|abstained)",procedure="{procedure}"}} (.+)', text
        )
        assert sorted(map(float, counts)) == [0.0, 1.0]
        assert f'smoothed_radius_count{{procedure="{procedure}"}} 1.0' in text
    assert f'smoothed_model{{name="trial",version="3",weights_sha256="{"0" * 64}"}} 1.0' in text


def test_a_token_is_wanted_where_one_is_set(classifier):
    with running(create_app(classifier, token="correct horse battery")) as client:
        assert ask(client).status_code == 401
        assert client.get("/metrics").status_code == 401
        assert client.get("/health").status_code == 200
        for given, status in [("correct horse battery", 200), ("correct horse batterx", 401), ("é", 401)]:
            client.headers = {"authorization": f"Bearer {given}".encode()}
            assert ask(client).status_code == status


@pytest.mark.medium
def test_past_the_limit_of_concurrent_work_callers_are_sent_away_and_the_service_recovers(classifier):
    app = create_app(classifier, limits=ServiceLimits(concurrent=2))

    with running(app) as client, concurrent.futures.ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(lambda _: ask(client, params={"n": 20_000}), range(12)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= 2
        for answer in answers:
            if answer.status_code == 503:
                assert answer.headers["retry-after"] == "1"
                assert "the limit of 2 requests at once" in answer.json()["message"]
        assert [ask(client).status_code for _ in range(3)] == [200, 200, 200]


def test_a_request_is_no_larger_than_the_images_that_one_may_have(classifier):
    """Four images, each number as long as JSON writes one, fit; a little more is refused by its length alone."""
    longest = bytes_needed(classifier.card, images=4)
    images = torch.full((4, *SHAPE), 1.2345678901234567e-100, dtype=torch.float64).tolist()
    longest_numbers = json.dumps({"inputs": images, "params": {"n": 9}}).encode()
    assert 4 * 256 * 25 < len(longest_numbers) <= longest < 40_000
    with running(create_app(classifier)) as client:
        headers = {"content-type": "application/json"}
        assert client.post("/invocations", content=longest_numbers, headers=headers).status_code == 400
        answer = client.post("/invocations", content=b" " * (longest + 1), headers=headers)
        assert answer.status_code == 413
        assert f"the limit of {longest} bytes" in answer.json()["message"]


def test_images_of_any_size_leave_the_limit_where_it_was(classifier):
    large = dataclasses.replace(classifier.card, image_shape=[3, 224, 224])
    assert bytes_needed(large, images=256) == 16 * 2**20


def test_requests_are_parsed_one_at_a_time(classifier, monkeypatch):
    """As Python objects they take many times their bytes."""
    inside, most, parse = [], [], requests_module.parse

    def slow_parse(*asked):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return parse(*asked)

    monkeypatch.setattr(requests_module, "parse", slow_parse)
    with running(create_app(classifier)) as client, concurrent.futures.ThreadPoolExecutor(4) as callers:
        statuses = list(callers.map(lambda _: ask(client, params={"n": 50}).status_code, range(4)))
    assert statuses == [200] * 4
    assert max(most) == 1
