"""
What the daemon knows, as Prometheus reads it. Made anew for every scrape from what the board shows.

Labels hold names that somebody gave in a manifest, never what a file or a model says.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from reconciler.daemon import wire
from reconciler.daemon.board import BUCKETS, Board
from reconciler.drift import Drift
from reconciler.kind import Action

QUEUED = (Action.CREATE, Action.UPDATE, Action.WAIT)


def text(board: Board) -> bytes:
    """In Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Board(board))
    return generate_latest(registry)


class _Board(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterable[Metric]:
        yield from _passes(self._board)
        yield from _calls(self._board)
        yield from _resources(self._board)
        yield from _money(self._board)


def _passes(board: Board) -> Iterator[Metric]:
    passes = CounterMetricFamily("reconciler_passes", "Passes since the start.", labels=["outcome"])
    for outcome in ("settled", "unsettled", "failed"):
        passes.add_metric([outcome], board.passes[outcome])
    yield passes
    total, buckets = 0, []
    for end in (*BUCKETS, float("inf")):
        total += board.durations[end]
        buckets.append(("+Inf" if end == float("inf") else str(end), float(total)))
    yield HistogramMetricFamily(
        "reconciler_pass_seconds", "How long passes take.", buckets=buckets, sum_value=board.seconds
    )
    yield GaugeMetricFamily(
        "reconciler_last_pass_timestamp_seconds", "When the last pass ended.", board.moment.ended_at
    )
    yield GaugeMetricFamily("reconciler_ready", "The platform was seen.", float(board.moment.healthy))
    for name, trouble in (("source", board.source), ("publishing", board.publishing)):
        what = "manifests come from" if name == "source" else "releases go"
        yield GaugeMetricFamily(
            f"reconciler_{name}_failing", f"Where {what} cannot be used.", float(bool(trouble))
        )
    yield GaugeMetricFamily(
        "reconciler_manifest_problems", "What is wrong with manifests.", len(board.moment.problems)
    )
    hooks = CounterMetricFamily("reconciler_webhooks", "Requests to /webhook.", labels=["answer"])
    for answer, count in sorted(board.webhooks.items()):
        hooks.add_metric([answer], count)
    yield hooks


def _calls(board: Board) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "reconciler_platform_calls", "Calls to the platform.", labels=["verb", "collection", "outcome"]
    )
    for (verb, collection, outcome), count in sorted(board.calls.copy().items()):
        calls.add_metric([verb, collection, outcome], count)
    yield calls
    yield CounterMetricFamily(
        "reconciler_platform_call_seconds", "Time spent in calls to the platform.", board.call_seconds
    )


def _resources(board: Board) -> Iterator[Metric]:
    done = board.moment.done
    steps = done.steps if done else ()
    queue = sum(step.action in QUEUED for step in steps)
    yield GaugeMetricFamily("reconciler_queue", "Resources that are made, or wait to be.", queue)
    each = GaugeMetricFamily(
        "reconciler_resource_ready", "Whether a resource stands as it is wanted.", labels=["kind", "name"]
    )
    for step in steps:
        each.add_metric([step.address.kind, step.address.name], float(wire.ready(step)))
    yield each
    count = Counter(found.drift for found in board.moment.drift)
    drift = GaugeMetricFamily(
        "reconciler_drift", "How what stands differs from what is wanted.", labels=["class"]
    )
    for known in Drift:
        drift.add_metric([str(known)], count[known])
    yield drift
    retiring = GaugeMetricFamily(
        "reconciler_retiring_days", "Days until a model is switched off.", labels=["kind", "name"]
    )
    for found in board.moment.drift:
        if found.days is not None:
            kind, _, name = found.address.partition("/")
            retiring.add_metric([kind, name], found.days)
    yield retiring


def _money(board: Board) -> Iterator[Metric]:
    money = GaugeMetricFamily("reconciler_money_usd", "US dollars in the ledger.", labels=["state"])
    for state, usd in sorted(board.moment.money.items()):
        money.add_metric([state], usd)
    yield money
