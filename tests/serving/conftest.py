"""A classifier, the service around it, and the lines that it logs."""

import json
import logging

import pytest

from components.certification.classifier import REQUESTS
from components.serving.app import ServiceLimits, create_app
from tests.support.serving import make_classifier, running


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
