"""The service: the smoothed classifier over HTTP, with limits, back-pressure, one log line per request and metrics.

    POST /invocations   {"inputs": [[...]], "params": {"n": ..., "failure_prob": ..., "radius": ...}}, where inputs are
                        numbers or data URLs of pictures; or the bytes of one picture, with the params in the query
    GET  /health        200 once the model is loaded, checked and warm; names the version that answers, and the one that
                        the alias points at
    GET  /metrics       for Prometheus
    GET  /card          the model that answers, and the limits
    GET  /examples      images to try
    GET  /              the page for people; /docs and /openapi.json describe the paths (see `static`)

Requests have the form of MLflow's own server. A refusal is {"message": one sentence}, with status 400 (the request is
wrong), 401 (the token is wrong), 413 (too large), 415 (neither JSON nor a picture), 503 (too much work at once: try
again after Retry-After seconds) or 504 (it would take too long); 500 is an error of the service.
"""

import asyncio
import hmac
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd
from fastapi import FastAPI, Request, Response

from components.certification.classifier import REQUESTS, SmoothedClassifier, TooSlow
from components.certification.noise import ARITHMETIC
from components.serving import requests
from components.serving.about import HOW, NOTHING, About, facts
from components.serving.alias import AliasWatch
from components.serving.metrics import CONTENT_TYPE, Metrics
from components.serving.pictures import FORMATS, TooLarge
from components.serving.requests import Asked
from components.serving.shown import shown
from components.serving.static import HEADERS, File, load_files
from components.tools.wording import counted

OPEN_PATHS = ("/health", "/ping")
RETRY_AFTER = 1
"""Seconds after which a rejected caller may try again."""


@dataclass(frozen=True)
class ServiceLimits:
    """The limits of the service, in addition to the classifier's `Limits` of one request."""

    request_bytes: int | None = None
    """None: of numbers, the size of as many images as the classifier accepts; of either kind at most 16 MiB."""
    concurrent: int = 8
    """Requests processed at once; further ones are rejected with status 503."""


DEFAULT_LIMITS = ServiceLimits()


@dataclass(frozen=True)
class Served:
    """The model that answers, and what is known of it: one object, so that a request sees both of one version."""

    classifier: SmoothedClassifier
    about: About = NOTHING

    @property
    def origin(self) -> dict[str, str]:
        origin = self.classifier.origin
        return {"model": origin.name, "version": origin.version}


class Refusal(Exception):
    """A request that is not answered: its status and the sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def create_app(
    classifier: SmoothedClassifier,
    *,
    about: About = NOTHING,
    token: str | None = None,
    limits: ServiceLimits = DEFAULT_LIMITS,
    watch: AliasWatch | None = None,
) -> FastAPI:
    """The service around a classifier; its `state.service` is a `Service`.

    Args:
        token: what callers must send as `Authorization: Bearer <token>`, except for /health, the page and its files,
            which hold nothing of the model.
        watch: of the alias that the classifier was loaded by, or None.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if watch:
            watch.stop()

    app = FastAPI(lifespan=lifespan, title="smoothed classifier", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service = Service(Served(classifier, about), limits, watch)
    files = load_files()

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        is_open = request.url.path in (*OPEN_PATHS, *files)
        if token is not None and not is_open and not has_token(request, token):
            refusal = Refusal(401, "the header 'Authorization: Bearer <token>' is missing or wrong")
            response = service.refuse(refusal)
        else:
            response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    for path in OPEN_PATHS:
        app.add_api_route(path, service.health, methods=["GET"])
    for path, file in files.items():
        app.add_api_route(path, answering(file), methods=["GET"])
    for path, handler in (("metrics", service.show_metrics), ("card", service.card), ("examples", service.examples)):
        app.add_api_route(f"/{path}", handler, methods=["GET"])
    app.add_api_route("/invocations", service.invocations, methods=["POST"])
    return app


def answering(file: File) -> Callable[[], Awaitable[Response]]:
    """A handler that answers with a file of the page."""

    async def answer() -> Response:
        return Response(file.content, media_type=file.media_type)

    return answer


class Service:
    """The handlers of the paths."""

    def __init__(self, served: Served, limits: ServiceLimits, watch: AliasWatch | None) -> None:
        self.served, self.limits, self.watch = served, limits, watch
        self.metrics = Metrics(served.classifier)
        self._workers = ThreadPoolExecutor(limits.concurrent, "requests")
        self._inside = 0
        self._parsing = threading.Lock()

    def serve(self, served: Served) -> None:
        """Let another version answer from now on; requests that have begun are answered by theirs."""
        self.served = served
        self.metrics.name_model(served.classifier)

    async def health(self) -> dict[str, str]:
        found = {"status": "ready", **self.served.origin, "arithmetic": ARITHMETIC}
        return found | ({"alias": self.watch.alias, "alias_version": self.watch.version} if self.watch else {})

    async def show_metrics(self) -> Response:
        if self.watch:
            self.metrics.show_alias(self.watch)
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def card(self) -> Response:
        served = self.served
        picture_bytes = requests.most_bytes("image/png", served.classifier, self.limits.request_bytes)
        return json_response(facts(served.classifier, served.about, picture_bytes))

    async def examples(self) -> Response:
        return json_response([asdict(example) for example in self.served.about.examples])

    async def invocations(self, request: Request) -> Response:
        if self._inside >= self.limits.concurrent:
            sentence = f"busy with the limit of {counted(self.limits.concurrent, 'requests')} at once: try again later"
            return self.refuse(Refusal(503, sentence))
        self._count_inside(+1)
        begin, served = time.perf_counter(), self.served
        try:
            kind = content_type(request)
            most = requests.most_bytes(kind, served.classifier, self.limits.request_bytes)
            body = await read_body(request, most, served.classifier.limits.seconds)
            work = partial(self.answer, served.classifier, kind, body, dict(request.query_params))
            answers, asked, more = await asyncio.get_running_loop().run_in_executor(self._workers, work)
        except Refusal as refusal:
            return self.refuse(refusal)
        except Exception as error:  # the caller learns that the service failed, the log says why
            return self.refuse(Refusal(500, "the service failed to answer: see its log"), reason=repr(error))
        finally:
            self._count_inside(-1)
        seconds = time.perf_counter() - begin
        self.metrics.count(answers, asked["radius"], seconds)
        content = {"params": asked, **served.origin, **HOW, "seconds": round(seconds, 3), **more}
        return json_response({"predictions": answers.to_dict("records"), **content})

    def _count_inside(self, change: int) -> None:
        """Must be called only in the event loop's thread."""
        self._inside += change
        self.metrics.inside.set(self._inside)

    def answer(
        self, classifier: SmoothedClassifier, kind: str, body: bytes, query: dict[str, str]
    ) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
        """The certificates that answer a request, the params that were used, and what else was asked for."""
        try:
            # Parsed to Python objects, a request takes some twenty times its bytes, and a picture takes thousands. So
            # only one is parsed at a time; the parser holds the GIL anyway.
            with self._parsing:
                asked: Asked = requests.parse(kind, body, query, classifier)
            answers = classifier.certify(asked.images, **asked.params)
        except TooSlow as error:
            raise Refusal(504, str(error)) from None
        except TooLarge as error:
            raise Refusal(413, str(error)) from None
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        more = {} if asked.show is None else {"shown": shown(classifier, asked.images, answers, asked.show)}
        if asked.rules:
            answers["resized"] = asked.rules
        used = {"n": classifier.n, "failure_prob": classifier.failure_prob, "radius": None} | asked.params
        return answers, used, more

    def refuse(self, refusal: Refusal, **details: Any) -> Response:
        """The response to a request that is not answered, counted and logged."""
        self.metrics.requests.labels(str(refusal.status)).inc()
        line = {"event": "refused", "time": time.time(), **self.served.origin, "status": refusal.status}
        REQUESTS.info(json.dumps(line | {"message": str(refusal)} | details))
        headers = {503: {"Retry-After": str(RETRY_AFTER)}, 401: {"WWW-Authenticate": "Bearer"}}
        return json_response({"message": str(refusal)}, refusal.status, headers.get(refusal.status))


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content) + "\n", status, headers, media_type=requests.JSON)


def has_token(request: Request, token: str) -> bool:
    """Compared in constant time."""
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def content_type(request: Request) -> str:
    """The kind of a request's body: JSON or a picture."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (requests.JSON, *FORMATS):
        raise Refusal(415, f"the content type must be {requests.JSON} or one of {', '.join(FORMATS)}")
    return kind


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The body of a request. Memory never holds more of it than `most` bytes and the last chunk."""
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
