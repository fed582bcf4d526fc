"""What dashboards and alert rules ask of Prometheus: read, checked against what is exported.

Only as much of PromQL as they are written in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from deploy.metrics_catalogue import Instrument
from deploy.ray_environment import REPOSITORY

RULES = sorted((REPOSITORY / "deploy/prometheus/rules").glob("*.yml"))

# What Prometheus and Ray Serve tell themselves.
FOREIGN: Mapping[str, frozenset[str]] = {
    "up": frozenset({"job", "instance"}),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
    "ray_serve_application_status": frozenset({"application"}),
    "ray_serve_deployment_replica_healthy": frozenset({"application", "deployment", "replica"}),
}
_WORDS = frozenset({
    "and", "avg_over_time", "by", "ceil", "count", "histogram_quantile", "max", "max_over_time",
    "min", "on", "or", "rate", "scalar", "sum", "vector",
})  # fmt: skip
_MATCHERS = re.compile(r"([A-Za-z_:][\w:]*)\{([^}]*)\}")
_GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")
_IDENTIFIER = re.compile(r"[A-Za-z_:][\w:]*")
_COMPARISON = re.compile(r" (==|!=|<=|>=|<|>) (?=[\d.]|scalar)")


@dataclass(frozen=True, slots=True)
class Rule:
    """One of a rule file; `alert` or `record` is its name."""

    name: str
    is_alert: bool
    expr: str
    labels: frozenset[str]


def rules() -> list[Rule]:
    """Recording and alert rules, in order."""
    found = []
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                is_alert = "alert" in rule
                name = rule["alert" if is_alert else "record"]
                found.append(Rule(name, is_alert, rule["expr"], frozenset(rule.get("labels", ()))))
    return found


def labels_of_series(instruments: Mapping[str, Instrument]) -> dict[str, frozenset[str]]:
    """Of each series that a query may name: exported, recorded, or told by others."""
    found = dict(FOREIGN)
    for name, instrument in instruments.items():
        if instrument.kind == "histogram":
            found[f"{name}_bucket"] = instrument.all_labels | {"le"}
            found[f"{name}_count"] = instrument.all_labels
        else:
            found[name] = instrument.all_labels
    for rule in rules():
        if not rule.is_alert:
            kept = {label for group in _groupings(rule.expr) for label in group} - {"le"}
            found[rule.name] = found.get(rule.name, frozenset()) | kept | rule.labels
    return found


def faults(expr: str, known: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """What in a query can find nothing: an unknown series, a label that its series do not have."""
    named = set(_names(expr))
    yield from (f"{name}: no such series" for name in sorted(named - known.keys()))
    for name, matchers in _MATCHERS.findall(expr):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        yield from (f"{name}: no label {x}" for x in sorted(labels - known.get(name, labels)))
    anywhere = frozenset[str]().union(*(known.get(name, frozenset()) for name in named))
    for group in _groupings(expr):
        yield from (f"grouped by {x}: nobody has it" for x in group if x not in anywhere)


def without_threshold(expr: str) -> str:
    """An alert's query that answers whether it holds, where the alert's answers only if it does."""
    return _COMPARISON.sub(r" \1 bool ", expr)


def _names(expr: str) -> Iterator[str]:
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', "", _GROUPING.sub("", expr))
    return (word for word in _IDENTIFIER.findall(bare) if word not in _WORDS)


def _groupings(expr: str) -> Iterator[list[str]]:
    return ([label.strip() for label in group.split(",")] for group in _GROUPING.findall(expr))
