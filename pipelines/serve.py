"""Serve a registered model over HTTP: every answer carries its certificate.

Listens on loopback by default. On any other address callers need the token in the environment variable SERVING_TOKEN.
"""

import argparse
import ipaddress
import os
import sys

import numpy as np
import uvicorn
from fastapi import FastAPI

from components.certification.classifier import Limits, SmoothedClassifier, write_requests
from components.data.prepared import Split, load_description, load_split_or_manifest
from components.model.card import ModelCard
from components.registry.connection import in_one_line, use_store
from components.registry.loading import load_classifier
from components.registry.model_files import find_version, parse_uri
from components.registry.versions import described
from components.serving.about import About, Example
from components.serving.alias import AliasWatch
from components.serving.app import Served, ServiceLimits, create_app
from components.serving.pictures import data_url, form_of
from pipelines import artifacts

TOKEN = "SERVING_TOKEN"
SHORTEST_TOKEN = 16
EXAMPLES = 12
"""Test images that the page offers at most."""


def main() -> None:
    options = parse_options()
    try:
        with in_one_line("start the service again when it does"):
            app = prepare(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    write_requests()
    print(f"serving {app.title} on http://{options.host}:{options.port}", file=sys.stderr, flush=True)
    uvicorn.run(app, host=options.host, port=options.port, access_log=False, log_level="warning")


def prepare(options: argparse.Namespace) -> FastAPI:
    """The service with its model, loaded, checked and warm; its title says which version it is.

    Raises:
        ValueError: one line that says why there is no such service.
    """
    token = required_token(options.host)
    _, alias, _ = parse_uri(options.model)
    use_store(artifacts.tracking_store())
    limits = Limits(images=options.max_images, n=options.max_n, seconds=options.max_seconds)
    try:
        classifier = load_classifier(options.model, limits)
    except FloatingPointError:  # of the image that warms it up, which no caller has sent
        raise ValueError(
            f"the network of {options.model} gives logits that are not finite: train it anew and register that"
        ) from None
    name, version = classifier.origin.name, classifier.origin.version
    watch = AliasWatch(alias, version, lambda: str(find_version(options.model).version)) if alias else None
    service = ServiceLimits(request_bytes=options.max_bytes, concurrent=options.max_concurrent)
    app = create_app(classifier, about=about(classifier), token=token, limits=service, watch=watch)
    app.title = f"{name} v{version}"

    def serve(number: str) -> None:
        newer = load_classifier(f"models:/{name}/{number}", limits)
        app.state.service.serve(Served(newer, about(newer)))

    if watch:
        watch.start(serve)
    return app


def about(classifier: SmoothedClassifier) -> About:
    """The results of the registered table, and one test image per class where the prepared data is the model's."""
    origin = classifier.origin
    facts = described(find_version(f"models:/{origin.name}/{origin.version}"), None)
    results = {
        "acr": facts.acr,
        "bound": facts.bound,
        "clean_accuracy": facts.clean_accuracy,
        "certified_accuracy": {f"{radius:g}": value for radius, value in facts.certified_accuracy.items()},
    }
    known = {name: value for name, value in results.items() if value}
    return About(known, examples(classifier.card))


def examples(card: ModelCard) -> list[Example]:
    """The first test image of each of the first classes; none where other data is prepared here, or files are."""
    try:
        description = load_description(artifacts.DESCRIPTION)
        split = load_split_or_manifest(artifacts.TEST_SPLIT)
    except ValueError:
        return []
    if description.sha256 != card.data_sha256 or not isinstance(split, Split) or form_of(card) is None:
        return []
    labels, firsts = np.unique(split.labels, return_index=True)
    scale = 255 / description.max_value
    return [
        Example(card.classes[label], data_url(np.rint(split.images[first] * scale).astype(np.uint8)))
        for label, first in list(zip(labels, firsts, strict=True))[:EXAMPLES]
    ]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.serve", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", required=True, help="models:/<name>@<alias> or models:/<name>/<version>")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    limits, service = Limits(), ServiceLimits()
    parser.add_argument("--max-images", type=int, default=limits.images, help="images per request")
    parser.add_argument("--max-n", type=int, default=limits.n, help="samples per image")
    parser.add_argument("--max-seconds", type=float, default=limits.seconds, help="time per request")
    parser.add_argument(
        "--max-bytes", type=int, help="bytes per request; None: enough for --max-images images, at most 16 MiB"
    )
    parser.add_argument("--max-concurrent", type=int, default=service.concurrent, help="requests processed at once")
    return parser.parse_args()


def required_token(host: str) -> str | None:
    """The token of the environment, if any.

    Raises:
        ValueError: it is missing although other machines can reach `host`, or it is too short.
    """
    token = os.environ.get(TOKEN) or None  # an empty variable is an unset one
    if token is None and not is_loopback(host):
        raise ValueError(
            f"host is {host!r}, which other machines can reach: set {TOKEN} in the environment, or use 127.0.0.1"
        )
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise ValueError(f"{TOKEN} has {len(token)} characters: at least {SHORTEST_TOKEN} are needed")
    return token


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


if __name__ == "__main__":
    main()
