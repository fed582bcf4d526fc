"""The catalogue of metrics: it has all that services declare, and its document is fresh."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from deploy.metrics_catalogue import DOCUMENT, Instrument, catalogue, render
from deploy.ray_environment import REPOSITORY

# Of bounded values, each: an enumeration, a route, a part of the configuration or of the model.
BOUNDED = {
    "dtype", "finished_reason", "kind", "layer", "method", "outcome", "python", "queue", "reason",
    "route", "shard", "stage", "status", "version",
}  # fmt: skip
# vLLM's name for a histogram of tokens.
UNUSUAL = {"orrery_iteration_tokens_total"}


@pytest.fixture(scope="module")
def instruments() -> dict[str, Instrument]:
    return catalogue()


def declared_in_code() -> Iterator[str]:
    """First arguments of what looks like a declaration, in any file of the services."""
    for path in (REPOSITORY / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else ""
            name = function.id if isinstance(function, ast.Name) else name
            first = node.args[0]
            if name in ("counter", "gauge", "histogram") and isinstance(first, ast.Constant):
                yield f"orrery_{first.value}"


def test_catalogue_has_every_metric_that_is_declared_each_in_one_place(
    instruments: dict[str, Instrument],
) -> None:
    declared = list(declared_in_code())
    assert sorted(declared) == sorted(set(declared))
    assert set(declared) == set(instruments)


def test_document_is_fresh(instruments: dict[str, Instrument]) -> None:
    assert DOCUMENT.read_text() == render(instruments), "run python -m deploy.metrics_catalogue"


def test_names_say_what_they_count_and_labels_are_bounded(
    instruments: dict[str, Instrument],
) -> None:
    for name, instrument in instruments.items():
        counts = name.endswith("_total") and name not in UNUSUAL
        assert counts == (instrument.kind == "counter"), name
        assert instrument.description.endswith("."), name
        assert set(instrument.labels) <= BOUNDED, name
        assert bool(instrument.buckets) == (instrument.kind == "histogram"), name
        assert list(instrument.buckets) == sorted(set(instrument.buckets)), name


def test_design_names_are_there(instruments: dict[str, Instrument]) -> None:
    names = (
        "time_to_first_token_seconds inter_token_latency_seconds e2e_request_latency_seconds "
        "num_requests_running num_requests_waiting kv_cache_usage_perc prefix_cache_queries_total "
        "prefix_cache_hits_total num_preemptions_total prompt_tokens_total generation_tokens_total "
        "request_success_total"
    )
    for name in names.split():
        assert {"service", "model"} <= instruments[f"orrery_{name}"].all_labels
    assert instruments["orrery_request_success_total"].labels == ("finished_reason",)
