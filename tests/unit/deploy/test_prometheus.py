"""Prometheus's files: they are valid, what they ask for exists, alerts fire when they should."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.metrics_catalogue import catalogue
from deploy.ray_environment import REPOSITORY
from tests.promql import RULES, Rule, faults, labels_of_series, rules, without_threshold
from tests.tools import tool

FOLDER = REPOSITORY / "deploy" / "prometheus"
CONFIGURATIONS = [FOLDER / "local.yml", FOLDER / "compose.yml"]


def promtool(*arguments: str | Path) -> str:
    """What it prints. Fails with that when it finds something wrong."""
    command = [tool("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_configuration_is_valid_with_its_rules(path: Path) -> None:
    assert f"{len(RULES)} rule files found" in promtool("check", "config", path)


def test_rules_pass_their_tests() -> None:
    promtool("test", "rules", *sorted((FOLDER / "tests").glob("*.test.yml")))


def test_every_rule_has_a_test() -> None:
    tests = "".join(path.read_text() for path in (FOLDER / "tests").glob("*.test.yml"))
    untested = {rule.name for rule in rules()} - {"orrery_time_to_first_token_seconds:objective"}
    assert {name for name in untested if name not in tests} == set()


def test_every_alert_is_explained() -> None:
    page = (REPOSITORY / "docs" / "observability.md").read_text()
    explained = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `Orrery")}
    assert explained == {rule.name for rule in rules() if rule.is_alert}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_rule_asks_for_what_is_exported(rule: Rule) -> None:
    assert list(faults(rule.expr, labels_of_series(catalogue()))) == []


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_metrics_get_the_names_they_are_declared_by(path: Path) -> None:
    (job,) = yaml.safe_load(path.read_text())["scrape_configs"]
    assert job["job_name"] == "orrery"
    assert job["metric_relabel_configs"] == [
        {
            "source_labels": ["__name__"],
            "regex": "ray_(orrery_.*)",
            "target_label": "__name__",
            "replacement": "$1",
        }
    ]


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("orrery_num_requests_runing", "orrery_num_requests_runing: no such series"),
        ("orrery_time_to_first_token_seconds", "no such series"),
        ('orrery_rpc_requests_total{state="OK"}', "orrery_rpc_requests_total: no label state"),
        ("sum by (method) (orrery_num_requests_running)", "grouped by method: nobody has it"),
        ('up{application="llama"}', "up: no label application"),
    ],
)
def test_query_that_can_find_nothing_is_noticed(expr: str, fault: str) -> None:
    (found,) = faults(expr, labels_of_series(catalogue()))
    assert fault in found


def test_threshold_becomes_a_question() -> None:
    asked = without_threshold('min by (a) (x{b=~"c"}) < 1\n  and on (a) rate(y[5m]) > scalar(z)')
    assert asked == 'min by (a) (x{b=~"c"}) < bool 1\n  and on (a) rate(y[5m]) > bool scalar(z)'
