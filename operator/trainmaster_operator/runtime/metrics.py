"""Prometheus metrics. No label ever holds the name of a job: the number of series must not grow with use."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Everything that the operator counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconcile = Histogram(
            "trainmaster_reconcile_seconds",
            "Duration of a reconcile in seconds.",
            buckets=_FAST,
            registry=self.registry,
        )
        self._errors = Counter(
            "trainmaster_reconcile_errors", "Reconciles that failed and will be retried.", registry=self.registry
        )
        self._waited = Histogram(
            "trainmaster_queue_wait_seconds",
            "Seconds that a job waited in the queue before it was reconciled.",
            buckets=_FAST,
            registry=self.registry,
        )
        self._requests = Counter(
            "trainmaster_api_requests",
            "Requests to the Kubernetes API; code 0: no response.",
            ["verb", "kind", "code"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "trainmaster_api_request_seconds",
            "Duration of a request to the Kubernetes API in seconds.",
            ["verb"],
            buckets=_FAST,
            registry=self.registry,
        )
        self._failures = Counter(
            "trainmaster_attempt_failures", "Attempts that failed, by class.", ["failure_class"], registry=self.registry
        )
        self._progress = Counter(
            "trainmaster_progress_messages", "Progress messages, by HTTP status.", ["code"], registry=self.registry
        )

    def waited(self, seconds: float) -> None:
        """Record how long a key waited in the queue."""
        self._waited.observe(seconds)

    def worked(self, seconds: float, failed: bool) -> None:
        """Record how long a reconcile took."""
        self._reconcile.observe(seconds)
        if failed:
            self._errors.inc()

    def request(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """Record a request to the API."""
        self._requests.labels(verb, kind, str(code)).inc()
        self._request_seconds.labels(verb).observe(seconds)

    def attempt_failed(self, failure_class: str) -> None:
        """Record a failed attempt."""
        self._failures.labels(failure_class).inc()

    def progress(self, code: int) -> None:
        """Record the response to a progress message."""
        self._progress.labels(str(code)).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read on each scrape."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def gauges(self, name: str, text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        """Add a labeled gauge that is read on each scrape."""
        self.registry.register(_ByLabel(name, text, label, read))

    def text(self) -> bytes:
        """Return the metrics in the exposition format."""
        return generate_latest(self.registry)


class _ByLabel(Collector):
    def __init__(self, name: str, text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        self._name, self._text, self._label, self._read = name, text, label, read

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label])
        for value, number in self._read().items():
            family.add_metric([value], number)
        yield family
