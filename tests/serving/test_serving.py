"""The classifier that callers ask, and the service around it: real HTTP, real sampling, a network of random weights."""

import concurrent.futures
import dataclasses
import json
import logging
import re
import time

import pytest
import torch

from components.certification.classifier import REQUESTS, TooSlow
from components.serving import app as app_module
from components.serving.alias import AliasWatch
from components.serving.app import ServiceLimits, bytes_needed, create_app
from pipelines.serve import required_token
from tests.support.serving import IMAGES, SHAPE, ask, make_classifier, running, some_images


@pytest.fixture(scope="module")
def classifier():
    return make_classifier(images=4, n=20_000)


@pytest.fixture(scope="module")
def client(classifier):
    with running(create_app(classifier, limits=ServiceLimits(request_bytes=100_000))) as client:
        yield client


@pytest.fixture
def lines(monkeypatch):
    """The log lines of the requests, as JSON."""
    found = []

    class Keeping(logging.Handler):
        def emit(self, record):
            found.append(json.loads(record.getMessage()))

    monkeypatch.setattr(REQUESTS, "handlers", [Keeping()])
    REQUESTS.setLevel(logging.INFO)
    return found


# --- the classifier ----------------------------------------------------------------------------------------------


def test_every_image_gets_class_radius_abstention_and_bound(classifier):
    answers = classifier.certify(some_images(4))
    assert list(answers.columns) == ["class", "class_name", "radius", "abstain", "p_lower", "n"]
    assert (answers["n"] == 500).all()
    for row in answers.to_dict("records"):
        assert row["abstain"] == (row["class"] == -1) == (row["p_lower"] <= 0.5) == (row["class_name"] == "")
        assert (row["radius"] > 0) == (not row["abstain"])


def test_a_preset_radius_is_certified_or_not_with_fewer_samples(classifier):
    answers = classifier.certify(some_images(4), n=20_000, radius=0.125)
    assert set(answers["radius"]) <= {0.0, 0.125}
    assert (answers["abstain"] == (answers["radius"] == 0)).all()
    assert answers["n"].sum() < 4 * 20_000
    assert ((answers["p_lower"] > 0.598) | answers["abstain"]).all(), "Phi(0.125 / 0.5) is .5987"


def test_the_network_runs_in_the_precision_of_its_card():
    classifier, seen = make_classifier("bfloat16"), []
    layer = next(layer for layer in classifier.sampler.network.modules() if isinstance(layer, torch.nn.Conv2d))
    layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.dtype))
    classifier.certify(some_images(1), radius=0.125)
    assert set(seen) == {torch.bfloat16}


def test_predictions_are_the_classes_of_the_certificates(classifier):
    images = some_images(4)
    answers, predictions = classifier.certify(images), classifier.predict(images)
    certified = ~torch.tensor(answers["abstain"])
    assert (predictions[certified] == torch.tensor(answers["class"])[certified]).all()


def test_each_request_has_a_seed_of_its_own_and_is_logged_without_its_images(classifier, lines):
    for _ in range(2):
        classifier.certify(some_images(2), radius=0.125)
    first, second = lines
    assert first["seed"] != second["seed"]
    assert first["n_used"] > 0
    assert first.items() >= {"model": "trial", "version": "3", "weights_sha256": "0" * 64, "images": 2}.items()
    assert first.items() >= {"n": 500, "failure_prob": 0.001, "radius": 0.125}.items()
    assert len(first["radii"]) == 2
    assert len(json.dumps(first)) < 600


@pytest.mark.parametrize(
    ("images", "params", "sentence"),
    [
        (IMAGES[0], {}, r"images have shape \[1, 16, 16\]: must be \[B, 1, 16, 16\]"),
        (IMAGES[:0], {}, "images have shape"),
        (IMAGES.double(), {}, "images are torch.float64: float32"),
        ((IMAGES * 255).byte(), {}, "images are torch.uint8: float32"),
        (IMAGES.numpy(), {}, "a float32 tensor is needed"),
        (IMAGES * 2, {}, r"outside \[0, 1\]"),
        (IMAGES * float("nan"), {}, "not finite"),
        (IMAGES.repeat(5, 1, 1, 1), {}, "5 images in one request: the limit is 4 images"),
        (IMAGES, {"n": 9}, "n is 9: at least 10 samples"),
        (IMAGES, {"n": 0}, "n is 0: must be a whole number"),
        (IMAGES, {"n": -5}, "n is -5"),
        (IMAGES, {"n": 1e3}, "n is 1000.0: must be a whole number"),
        (IMAGES, {"n": True}, "n is True"),
        (IMAGES, {"n": 20_001}, "n is 20001: the limit is n = 20000"),
        (IMAGES, {"failure_prob": 0.5}, "failure_prob is 0.5"),
        (IMAGES, {"failure_prob": 0.0}, "failure_prob is 0.0"),
        (IMAGES, {"failure_prob": float("nan")}, "failure_prob is nan"),
        (IMAGES, {"failure_prob": "small"}, "failure_prob is 'small'"),
        (IMAGES, {"radius": -0.1}, "radius is -0.1"),
        (IMAGES, {"radius": float("inf")}, "radius is inf"),
        (IMAGES, {"radius": True}, "radius is True"),
        (IMAGES, {"radius": 9.0}, "radius 9.0 cannot be certified by max_n = 400"),
        (IMAGES, {"radius": 0.1, "n": 49}, "n is 49: at least 50 samples"),
        (IMAGES, {"radius": 0.12345678901}, "more than the 9 decimals"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_sentence(classifier, images, params, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        classifier.certify(images, **params)
    assert "\n" not in str(refused.value)


def test_a_request_that_takes_too_long_is_given_up():
    slow = make_classifier(seconds=0.0)
    begin = time.monotonic()
    with pytest.raises(TooSlow, match="longer than the limit of 0 seconds"):
        slow.certify(some_images(1), n=1_000_000)
    assert time.monotonic() - begin < 5


# --- the service -------------------------------------------------------------------------------------------------


def test_the_service_answers_as_the_classifier_does(client):
    answer = ask(client, params={"n": 1000, "radius": None})
    assert answer.status_code == 200
    (prediction,) = answer.json()["predictions"]
    assert set(prediction) == {"class", "class_name", "radius", "abstain", "p_lower", "n"}
    assert prediction["n"] == 1000
    assert answer.json()["params"] == {"n": 1000, "failure_prob": 0.001, "radius": None}
    assert answer.json().items() >= {"model": "trial", "version": "3"}.items()


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
    assert client.get("/health").json() == {"status": "ready", "model": "trial", "version": "3"}


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


def test_others_than_this_machine_are_not_let_in_without_a_token(monkeypatch):
    monkeypatch.delenv("SERVING_TOKEN", raising=False)
    assert required_token("127.0.0.1") is required_token("::1") is required_token("localhost") is None
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        with pytest.raises(ValueError, match="set SERVING_TOKEN in the environment"):
            required_token(host)
    monkeypatch.setenv("SERVING_TOKEN", "")
    assert required_token("127.0.0.1") is None
    with pytest.raises(ValueError, match="set SERVING_TOKEN in the environment"):
        required_token("0.0.0.0")
    monkeypatch.setenv("SERVING_TOKEN", "short")
    with pytest.raises(ValueError, match="at least 16"):
        required_token("0.0.0.0")
    monkeypatch.setenv("SERVING_TOKEN", "long enough to be one")
    assert required_token("0.0.0.0") == required_token("127.0.0.1") == "long enough to be one"


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
    inside, most, parse = [], [], app_module.parse

    def slow_parse(body):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return parse(body)

    monkeypatch.setattr(app_module, "parse", slow_parse)
    with running(create_app(classifier)) as client, concurrent.futures.ThreadPoolExecutor(4) as callers:
        statuses = list(callers.map(lambda _: ask(client, params={"n": 50}).status_code, range(4)))
    assert statuses == [200] * 4
    assert max(most) == 1


# --- an alias that moves -----------------------------------------------------------------------------------------


def test_a_service_whose_alias_has_moved_says_so_and_answers_on(classifier, lines):
    version, failure = ["3"], []

    def ask_the_registry():
        if failure:
            raise failure[0]
        return version[0]

    watch = AliasWatch("champion", "3", ask_the_registry)
    with running(create_app(classifier, watch=watch)) as client:
        ready = {"status": "ready", "model": "trial", "version": "3", "alias": "champion"}
        watch.look()
        assert client.get("/health").json() == ready | {"alias_version": "3"}
        assert "smoothed_alias_moved 0.0" in client.get("/metrics").text
        version[0] = "4"
        watch.look()
        watch.look()
        assert [line["event"] for line in lines] == ["alias moved"], "once"
        assert lines[0]["message"] == "champion points at version 4 now: start the service again to serve it"
        assert client.get("/health").json() == ready | {"alias_version": "4"}
        text = client.get("/metrics").text
        assert 'smoothed_alias{alias="champion",version="4"} 1.0' in text
        assert 'smoothed_alias{alias="champion",version="3"}' not in text
        assert "smoothed_alias_moved 1.0" in text
        assert ask(client).json()["version"] == "3"
        failure.append(ConnectionError("the registry is down"))
        watch.look()
        assert client.get("/health").json() == ready | {"alias_version": "unknown"}
        assert ask(client).status_code == 200


def test_the_alias_is_looked_at_again_and_again(classifier):
    looks = []
    watch = AliasWatch("champion", "3", lambda: looks.append(1) or "3")
    watch.start(seconds=0.01)
    end = time.monotonic() + 30
    while len(looks) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(looks) >= 3
