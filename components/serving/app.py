"""The service: the smoothed classifier over HTTP, with limits, back-pressure, one log line per request and metrics.

    POST /invocations   {"inputs": [[...]], "params": {"n": ..., "failure_prob": ..., "radius": ...}}
    GET  /health        200 once the model is loaded, checked and warm; names the version that answers, and the one that
                        the alias points at
    GET  /metrics       for Prometheus

Requests have the form of MLflow's own server. A refusal is {"message": one sentence}, with status 400 (the request is
wrong), 401 (the token is wrong), 413 (too large), 415 (not JSON), 503 (too much work at once: try again after
Retry-After seconds) or 504 (it would take too long); 500 is an error of the service.
"""

import asyncio
import hmac
import json
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from components.certification.classifier import BOUND, REQUESTS, SmoothedClassifier, TooSlow, images_of
from components.certification.noise import ARITHMETIC
from components.model.card import ModelCard
from components.serving.alias import AliasWatch
from components.tools.wording import counted

PROCEDURES = ("reference", "preset")
PARAMS = ("n", "failure_prob", "radius")
OPEN_PATHS = ("/health", "/ping")
HOW = {"bound": BOUND, "arithmetic": ARITHMETIC}
"""How certificates are made; see docs/certificates.md."""
RETRY_AFTER = 1
"""Seconds after which a rejected caller may try again."""


NUMBER_BYTES = 32
"""Bytes per number in JSON: a number in [0, 1] and its separator take at most 25, and this leaves some room."""
MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ServiceLimits:
    """The limits of the service, in addition to the classifier's `Limits` of one request."""

    request_bytes: int | None = None
    """None: the size of as many images as the classifier accepts, at most 16 MiB."""
    concurrent: int = 8
    """Requests processed at once; further ones are rejected with status 503."""


DEFAULT_LIMITS = ServiceLimits()


def bytes_needed(card: ModelCard, images: int) -> int:
    """The size in bytes of a JSON request with this many images, at most 16 MiB."""
    return min(MOST_BYTES, images * math.prod(card.image_shape) * NUMBER_BYTES + 4096)


class Refusal(Exception):
    """A request that is not answered: its status and the sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Metrics:
    """The metrics for an operator, which show above all whether answers drift towards abstention."""

    def __init__(self, classifier: SmoothedClassifier) -> None:
        self.registry = CollectorRegistry()
        largest = 5 * classifier.card.sigma
        radii = [largest * i / 20 for i in range(21)]
        self.requests = self._add(Counter, "smoothed_requests", "Requests by status", ["status"])
        self.answers = self._add(Counter, "smoothed_answers", "Images by answer", ["procedure", "answer"])
        self.radii = self._add(
            Histogram, "smoothed_radius", "Radii of all answers, 0 of abstentions", ["procedure"], buckets=radii
        )
        for procedure in PROCEDURES:  # seen from the start
            self.radii.labels(procedure)
            for answer in ("certified", "abstained"):
                self.answers.labels(procedure, answer)
        self.samples = self._add(Counter, "smoothed_samples", "Noisy samples classified, after the selection")
        self.seconds = self._add(Histogram, "smoothed_request_seconds", "Time of answered requests")
        self.inside = self._add(Gauge, "smoothed_requests_inside", "Requests being worked on")
        model = self._add(Gauge, "smoothed_model", "The model that answers", ["name", "version", "weights_sha256"])
        self.model = {"model": classifier.origin.name, "version": classifier.origin.version}
        model.labels(classifier.origin.name, classifier.origin.version, classifier.card.weights_sha256).set(1)

        self.alias = self._add(Gauge, "smoothed_alias", "The version that the alias points at", ["alias", "version"])
        self.alias_moved = self._add(
            Gauge, "smoothed_alias_moved", "1 where the alias points at another version than the one that answers"
        )

    def show_alias(self, watch: AliasWatch) -> None:
        self.alias.clear()
        self.alias.labels(watch.alias, watch.version).set(1)
        self.alias_moved.set(watch.moved)

    def _add(self, kind: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return kind(*arguments, registry=self.registry, **options)

    def count(self, answers: pd.DataFrame, radius: float | None, seconds: float) -> None:
        """Count an answered request; `radius` is its preset radius, or None."""
        procedure = PROCEDURES[radius is not None]
        abstained = int(answers["abstain"].sum())
        self.answers.labels(procedure, "abstained").inc(abstained)
        self.answers.labels(procedure, "certified").inc(len(answers) - abstained)
        for certified in answers["radius"]:
            self.radii.labels(procedure).observe(certified)
        self.samples.inc(int(answers["n"].sum()))
        self.seconds.observe(seconds)
        self.requests.labels("200").inc()


def create_app(
    classifier: SmoothedClassifier,
    *,
    token: str | None = None,
    limits: ServiceLimits = DEFAULT_LIMITS,
    watch: AliasWatch | None = None,
) -> FastAPI:
    """The service around a classifier.

    Args:
        token: what callers must send as `Authorization: Bearer <token>`, except for /health.
        watch: of the alias that the classifier was loaded by, or None.
    """
    app = FastAPI(title="smoothed classifier", docs_url=None, redoc_url=None, openapi_url=None)
    service = Service(classifier, limits, watch)

    @app.middleware("http")
    async def check_token(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if token is not None and request.url.path not in OPEN_PATHS and not has_token(request, token):
            refusal = Refusal(401, "the header 'Authorization: Bearer <token>' is missing or wrong")
            return refusal_response(service.metrics, refusal)
        return await call_next(request)

    for path in OPEN_PATHS:
        app.add_api_route(path, service.health, methods=["GET"])
    app.add_api_route("/metrics", service.show_metrics, methods=["GET"])
    app.add_api_route("/invocations", service.invocations, methods=["POST"])
    return app


class Service:
    """The handlers of the paths."""

    def __init__(self, classifier: SmoothedClassifier, limits: ServiceLimits, watch: AliasWatch | None) -> None:
        self.classifier, self.limits, self.watch = classifier, limits, watch
        self.request_bytes = limits.request_bytes or bytes_needed(classifier.card, classifier.limits.images)
        self.metrics = Metrics(classifier)
        self._workers = ThreadPoolExecutor(limits.concurrent, "requests")
        self._inside = 0
        self._parsing = threading.Lock()

    async def health(self) -> dict[str, str]:
        facts = {"status": "ready", **self.metrics.model, "arithmetic": ARITHMETIC}
        return facts | ({"alias": self.watch.alias, "alias_version": self.watch.version} if self.watch else {})

    async def show_metrics(self) -> Response:
        if self.watch:
            self.metrics.show_alias(self.watch)
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def invocations(self, request: Request) -> Response:
        if self._inside >= self.limits.concurrent:
            sentence = f"busy with the limit of {counted(self.limits.concurrent, 'requests')} at once: try again later"
            return refusal_response(self.metrics, Refusal(503, sentence))
        self._count_inside(+1)
        begin = time.perf_counter()
        try:
            body = await read_body(request, self.request_bytes, self.classifier.limits.seconds)
            answers, asked = await asyncio.get_running_loop().run_in_executor(self._workers, self.answer, body)
        except Refusal as refusal:
            return refusal_response(self.metrics, refusal)
        except Exception as error:  # the caller learns that the service failed, the log says why
            failure = Refusal(500, "the service failed to answer: see its log")
            return refusal_response(self.metrics, failure, reason=repr(error))
        finally:
            self._count_inside(-1)
        self.metrics.count(answers, asked["radius"], time.perf_counter() - begin)
        content = {"predictions": answers.to_dict("records"), "params": asked, **self.metrics.model, **HOW}
        return Response(json.dumps(content) + "\n", media_type="application/json")

    def _count_inside(self, change: int) -> None:
        """Must be called only in the event loop's thread."""
        self._inside += change
        self.metrics.inside.set(self._inside)

    def answer(self, body: bytes) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The certificates that answer a request, and the params that were used."""
        classifier = self.classifier
        try:
            # Parsed to Python objects, a request takes some twenty times its bytes. So only one is parsed at a time;
            # the parser holds the GIL anyway.
            with self._parsing:
                images, params = parse(body)
            answers = classifier.certify(images, **params)
        except TooSlow as error:
            raise Refusal(504, str(error)) from None
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        return answers, {"n": classifier.n, "failure_prob": classifier.failure_prob, "radius": None} | params


def has_token(request: Request, token: str) -> bool:
    """Compared in constant time."""
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The body of a request. Memory never holds more of it than `most` bytes and the last chunk."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "the content type must be application/json")
    too_large = Refusal(413, f"the request is larger than the limit of {most} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        limit = counted(seconds, "seconds", form="g")
        raise Refusal(504, f"the request did not arrive within the limit of {limit}") from None
    return bytes(body)


def parse(body: bytes) -> tuple[torch.Tensor, dict[str, Any]]:
    """Images and params of a request.

    Raises:
        ValueError: one sentence that says what is wrong.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the request is not JSON") from None
    if not isinstance(request, dict) or "inputs" not in request or set(request) - {"inputs", "params"}:
        raise ValueError("the request must be a JSON object with the key inputs and, optionally, params")
    params = {} if request.get("params") is None else request["params"]
    if not isinstance(params, dict):
        raise ValueError("params must be a JSON object")
    if unknown := set(params) - set(PARAMS):
        raise ValueError(f"params has {sorted(unknown)[0]!r}: it may have {', '.join(PARAMS)}")
    given = {name: value for name, value in params.items() if value is not None}
    return images_of(request["inputs"]), given


def refusal_response(metrics: Metrics, refusal: Refusal, **details: Any) -> Response:
    """The response to a request that is not answered, counted and logged."""
    metrics.requests.labels(str(refusal.status)).inc()
    line = {"event": "refused", "time": time.time(), **metrics.model, "status": refusal.status, "message": str(refusal)}
    REQUESTS.info(json.dumps(line | details))
    headers = {503: {"Retry-After": str(RETRY_AFTER)}, 401: {"WWW-Authenticate": "Bearer"}}
    body = json.dumps({"message": str(refusal)}) + "\n"
    return Response(body, refusal.status, headers.get(refusal.status), media_type="application/json")
