"""The page and the pages about the API: what is sent, with which headers, and that nothing is asked of another host."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from fastapi.openapi.models import OpenAPI

from components.data import prepared
from components.serving import about
from components.serving.about import About, Example, facts
from components.serving.app import create_app
from components.serving.static import FILES, load_files
from pipelines import artifacts, serve
from tests.support.serving import ANSWER, SHAPE, ask, make_classifier, running

TOKEN = "correct horse battery"


def test_every_response_has_the_strict_headers(client):
    for path in (*FILES, "/health", "/metrics", "/card", "/examples", "/nowhere"):
        headers = client.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
    assert ask(client).headers["x-content-type-options"] == "nosniff"


def test_no_page_names_another_host_or_holds_code_that_the_policy_forbids():
    for path, file in load_files().items():
        text = file.content.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert set(re.findall(r"https?://[^/\"'\s]+", text)) <= {"http://127.0.0.1:8000"}, path
        assert not re.search(r"(src|href)=\"(//|http)", text)
        assert "@import" not in text
        assert "eval(" not in text
        assert "innerHTML" not in text
        if path in ("/", "/docs"):
            assert not re.search(r"<[^>]+\s(on[a-z]+|style)=", text)
            assert not re.search(r"<script(?![^>]*\ssrc=)|<style", text)


def test_a_page_of_another_site_cannot_ask_through_a_visitor_s_browser(client):
    """No answer allows another origin, and both kinds of body need that permission."""
    for kind in ("image/png", "application/json"):
        wish = {"origin": "https://example.org", "access-control-request-method": "POST"}
        answer = client.options("/invocations", headers=wish | {"access-control-request-headers": kind})
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_with_a_token_the_page_is_open_and_what_it_shows_is_not():
    with running(create_app(make_classifier(), token=TOKEN)) as client:
        for path in FILES:
            assert client.get(path).status_code == 200
        for path in ("/card", "/examples", "/metrics", "/nowhere"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["x-frame-options"]) == (401, "DENY")
        assert client.get("/card", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_description_of_the_api_is_valid_and_names_what_there_is(client):
    spec = client.get("/openapi.json").json()
    OpenAPI.model_validate(spec)
    assert set(spec["paths"]) == {"/invocations", "/card", "/examples", "/health", "/metrics"}
    schemas = spec["components"]["schemas"]
    assert set(schemas["Prediction"]["properties"]) == {*ANSWER, "resized"}
    answer = client.post("/invocations?show=1", json={"inputs": [[[[0.0] * 16] * 16]]}).json()
    assert set(schemas["Answer"]["properties"]) == set(answer)
    for name in re.findall(r'"#/components/(\w+/\w+)"', json.dumps(spec)):
        kind, which = name.split("/")
        assert which in spec["components"][kind]
    page = client.get("/docs").text
    assert all(path in page for path in spec["paths"])
    assert "$" not in re.sub(r"<pre.*?</pre>", "", page, flags=re.DOTALL), "a place in the template is left"


def test_the_card_has_what_the_page_shows(classifier):
    known = About({"acr": 0.5, "certified_accuracy": {"0.5": 0.25}}, [Example("a", "data:image/png;base64,AAAA")])
    with running(create_app(classifier, about=known)) as client:
        card = client.get("/card").json()
        assert client.get("/examples").json() == [{"name": "a", "image": "data:image/png;base64,AAAA"}]
    assert card.items() >= {"model": "trial", "version": "3", "sigma": 0.5, "classes": ["a", "b", "c"]}.items()
    assert card["results"] == {"acr": 0.5, "certified_accuracy": {"0.5": 0.25}}
    assert card["pictures"] == "shorter side to 16, centre crop to 16x16; as grey"
    assert [choice["n"] for choice in card["samples"]] == [500, 1000, 10_000], "the limit is 20,000"
    for choice in card["samples"]:
        assert 0 < choice["largest_preset_radius"] < choice["largest_radius"]


def test_what_the_card_says_of_a_preset_radius_is_not_refused(classifier):
    for choice in facts(classifier, about.NOTHING, 1)["samples"]:
        answers = classifier.certify(torch.zeros(1, *SHAPE), n=choice["n"], radius=choice["largest_preset_radius"])
        assert len(answers) == 1


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Prepared data with 16 levels; its description."""
    monkeypatch.chdir(tmp_path)
    images = np.arange(5 * 16, dtype=np.uint8).reshape(5, 1, 4, 4) % 17
    split = prepared.Split(images, np.array([2, 0, 2, 0, 1]))
    description = prepared.Description("digits", "", ["a", "b", "c"], [1, 4, 4], 16, None, None, 5, 5, "", "")
    prepared.save_split(split, artifacts.TEST_SPLIT)
    prepared.save_description(description, artifacts.DESCRIPTION)
    return description


def test_examples_are_the_first_test_images_of_the_classes_of_the_model_s_own_data(classifier, data):
    card = dataclasses.replace(classifier.card, data_sha256=data.sha256, image_shape=[1, 4, 4], classes=data.classes)
    examples = serve.examples(card)
    assert [example.name for example in examples] == ["a", "b", "c"]
    assert all(example.image.startswith("data:image/png;base64,") for example in examples)
    assert serve.examples(dataclasses.replace(card, data_sha256="other")) == []


def test_there_are_no_examples_where_no_data_is_prepared(classifier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert serve.examples(classifier.card) == []
