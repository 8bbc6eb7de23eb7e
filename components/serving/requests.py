"""What a request asks for: images, as numbers or pictures, params, and whether to show noisy copies."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from components.certification.classifier import SmoothedClassifier, images_of
from components.model.card import ModelCard
from components.serving import shown
from components.serving.pictures import FORMATS, MAX_BYTES, bytes_of_data_url, images_of_pictures
from components.tools.wording import counted

JSON = "application/json"
PARAMS = {"n": int, "failure_prob": float, "radius": float}
SHOW = "show"
"""In the query of a request: how many noisy copies to show."""
NUMBER_BYTES = 32
"""Bytes per number in JSON: a number in [0, 1] and its separator take at most 25, and this leaves some room."""
MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Asked:
    images: Tensor
    """float32 (B, C, H, W), or whatever shape numbers came in."""
    params: dict[str, Any]
    """Those that were given."""
    rules: list[str] = field(default_factory=list)
    """How each picture was resized; empty for numbers."""
    show: int | None = None


def bytes_needed(card: ModelCard, images: int) -> int:
    """The size in bytes of a JSON request with this many images, at most 16 MiB."""
    return min(MOST_BYTES, images * math.prod(card.image_shape) * NUMBER_BYTES + 4096)


def most_bytes(content_type: str, classifier: SmoothedClassifier, request_bytes: int | None) -> int:
    """The limit on the body of a request.

    Args:
        request_bytes: the operator's limit, if any.
    """
    if content_type in FORMATS:
        return min(MAX_BYTES, request_bytes or MAX_BYTES)
    return request_bytes or bytes_needed(classifier.card, classifier.limits.images)


def parse(content_type: str, body: bytes, query: Mapping[str, str], classifier: SmoothedClassifier) -> Asked:
    """What a request asks for.

    Args:
        content_type: `JSON` or one of the pictures' `FORMATS`.

    Raises:
        ValueError: one sentence that says what is wrong.
    """
    if content_type in FORMATS:
        params = parse_query(query, {SHOW: int, **PARAMS})
        show = parse_show(params, 1, classifier)
        images, rules = images_of_pictures([body], classifier.card)
        return Asked(images, params, rules, show)
    show_params = parse_query(query, {SHOW: int})
    inputs, params = parse_json(body)
    if not isinstance(inputs, list) or not any(isinstance(value, str) for value in inputs):
        images, rules = images_of(inputs), []
    else:
        images, rules = _of_data_urls(inputs, classifier)
    return Asked(images, params, rules, parse_show(show_params, len(images), classifier))


def _of_data_urls(inputs: list[Any], classifier: SmoothedClassifier) -> tuple[Tensor, list[str]]:
    if len(inputs) > (most := classifier.limits.images):
        raise ValueError(f"{len(inputs)} images in one request: the limit is {most} images")
    if not all(isinstance(value, str) for value in inputs):
        raise ValueError("inputs must be all data URLs of pictures or all numbers")
    return images_of_pictures([bytes_of_data_url(text, i) for i, text in enumerate(inputs)], classifier.card)


def parse_json(body: bytes) -> tuple[Any, dict[str, Any]]:
    """Inputs and params of a JSON request.

    Raises:
        ValueError: as `parse`.
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
    return request["inputs"], {name: value for name, value in params.items() if value is not None}


def parse_query(query: Mapping[str, str], kinds: Mapping[str, type]) -> dict[str, Any]:
    """The values of a query string.

    Raises:
        ValueError: it has another key, or a value that is no such number.
    """
    if unknown := set(query) - set(kinds):
        raise ValueError(f"the query has {sorted(unknown)[0]!r}: it may have {', '.join(kinds)}")
    values = {}
    for name, text in query.items():
        try:
            values[name] = kinds[name](text)
        except ValueError:
            what = "a whole number" if kinds[name] is int else "a number"
            raise ValueError(f"{name} is {text[:40]!r}: must be {what}") from None
    return values


def parse_show(params: dict[str, Any], images: int, classifier: SmoothedClassifier) -> int | None:
    """Take `show` out of params; None where it is not asked for.

    Raises:
        ValueError: it is out of range, or there is not one image that can be shown.
    """
    show: int | None = params.pop(SHOW, None)
    if show is None:
        return None
    if not 0 <= show <= shown.MOST:
        raise ValueError(f"{SHOW} is {show}: must be from 0 to {shown.MOST}")
    if images != 1 or classifier.card.image_shape[0] > 4:
        raise ValueError(
            f"{SHOW} is for one image of 1 to 4 channels, and this request has {counted(images, 'images')}"
        )
    return show
