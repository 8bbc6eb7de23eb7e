"""Serve a registered model: every answer with its certificate.

Listens on loopback unless told otherwise; elsewhere callers need the token in the environment variable SERVING_TOKEN.
"""

import argparse
import ipaddress
import os
import sys

import uvicorn

from components.certification.classifier import Limits, write_requests
from components.registry.loading import load_classifier
from components.registry.tracking import use_store
from components.serving.app import ServiceLimits, create_app
from pipelines import artifacts

TOKEN = "SERVING_TOKEN"
SHORTEST_TOKEN = 16


def main() -> None:
    options = parse_options()
    try:
        token = required_token(options.host)
        use_store(artifacts.tracking_store())
        limits = Limits(images=options.max_images, n=options.max_n, seconds=options.max_seconds)
        classifier = load_classifier(options.model, limits)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    write_requests()
    service = ServiceLimits(request_bytes=options.max_bytes, concurrent=options.max_concurrent)
    app = create_app(classifier, token=token, limits=service)
    what = f"{classifier.origin.name} v{classifier.origin.version}"
    print(f"serving {what} on http://{options.host}:{options.port}", file=sys.stderr, flush=True)
    uvicorn.run(app, host=options.host, port=options.port, access_log=False, log_level="warning")


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
    parser.add_argument("--max-bytes", type=int, default=service.request_bytes, help="size of a request")
    parser.add_argument("--max-concurrent", type=int, default=service.concurrent, help="requests worked on at once")
    return parser.parse_args()


def required_token(host: str) -> str | None:
    """The token of the environment, if any.

    Raises:
        ValueError: there is none, though others than this machine can reach `host`, or it is too short.
    """
    token = os.environ.get(TOKEN)
    if token is None and not is_loopback(host):
        raise ValueError(f"host is {host!r}, which others can reach: set {TOKEN} in the environment, or use 127.0.0.1")
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
