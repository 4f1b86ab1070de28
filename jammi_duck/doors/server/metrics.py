"""What `/metrics` tells, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        """All of them at zero."""
        self.registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=self.registry)

        def histogram(name: str, about: str) -> Histogram:
            return Histogram(name, about, buckets=_SECONDS, registry=self.registry)

        self.grpc_requests = counter("jammi_grpc_requests", "Calls over gRPC.")
        self.flight_queries = counter("jammi_flight_queries", "Statements that ran for clients of Flight SQL.")
        self.eval_invocations = counter("jammi_eval_invocations", "Statements with jammi_eval or jammi_tune.")
        self.http_requests = counter("jammi_http_requests", "Requests over HTTP, by path and status.", "path", "status")
        self.errors = counter("jammi_errors", "Statements that failed, by the class of the error.", "class")
        self.sent_bytes = counter("jammi_sent_bytes", "Bytes of results that were sent.")
        self.search_seconds = histogram("jammi_search_latency_seconds", "Time of statements that search.")
        self.query_seconds = histogram("jammi_query_seconds", "Time of all statements.")
        self.queue_seconds = histogram("jammi_queue_seconds", "Time for which statements waited for others.")
        self.encode_seconds = histogram("jammi_encode_seconds", "Time in which a model encoded queries or texts.")

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Tell a number that is asked for each time."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def watch_each(self, name: str, about: str, label: str, values: Callable[[], Iterable[tuple[str, float]]]) -> None:
        """Tell numbers with a label that are asked for each time."""
        self.registry.register(_Each(name, about, label, values))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class _Each(Collector):
    def __init__(self, *described: Any) -> None:
        self._name, self._about, self._label, self._values = described

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._about, labels=[self._label])
        for label, value in self._values():
            family.add_metric([label], value)
        yield family
