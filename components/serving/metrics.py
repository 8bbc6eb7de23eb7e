"""What the service tells Prometheus."""

from collections.abc import Callable
from typing import Any

import pandas as pd
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from components.certification.classifier import SmoothedClassifier
from components.serving.alias import AliasWatch

PROCEDURES = ("reference", "preset")
CONTENT_TYPE = CONTENT_TYPE_LATEST


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
        self.model = self._add(Gauge, "smoothed_model", "The model that answers", ["name", "version", "weights_sha256"])
        self.name_model(classifier)
        self.alias = self._add(Gauge, "smoothed_alias", "The version that the alias points at", ["alias", "version"])
        self.alias_moved = self._add(
            Gauge, "smoothed_alias_moved", "1 where the alias points at another version than the one that answers"
        )

    def name_model(self, classifier: SmoothedClassifier) -> None:
        """Say that this one answers from now on."""
        self.model.clear()
        origin = classifier.origin
        self.model.labels(origin.name, origin.version, classifier.card.weights_sha256).set(1)

    def show_alias(self, watch: AliasWatch) -> None:
        self.alias.clear()
        self.alias.labels(watch.alias, watch.version).set(1)
        self.alias_moved.set(watch.moved)

    def text(self) -> bytes:
        return generate_latest(self.registry)

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
