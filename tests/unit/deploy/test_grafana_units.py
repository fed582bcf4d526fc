"""Numbers, moments and legends as a dashboard writes them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy.grafana_dashboards import dashboards
from deploy.grafana_units import clock_ticks, flow, formatted, legend, value_ticks

HALF_PAST_TWO = datetime(2026, 3, 1, 14, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (0.0, "s", "0 s"),
        (0.00042, "s", "420 µs"),
        (0.02134, "s", "21.3 ms"),
        (0.9999, "s", "1 s"),
        (90.0, "s", "1.5 min"),
        (0.0, "percentunit", "0%"),
        (0.256, "percentunit", "25.6%"),
        (3.0, "short", "3"),
        (0.0125, "short", "0.0125"),
        (1234.5, "short", "1.23 K"),
        (2_500_000.0, "short", "2.5 Mil"),
        (12.0, "ops", "12 ops/s"),
        (3.0 * 2**20, "bytes", "3 MiB"),
    ],
)
def test_value_is_written_in_its_unit(value: float, unit: str, written: str) -> None:
    assert formatted(value, unit) == written


def test_every_unit_of_the_dashboards_is_known() -> None:
    for unit in {panel.unit for each in dashboards() for panel in each.panels}:
        assert formatted(1.0, unit)


@pytest.mark.parametrize(
    ("most", "unit", "written"),
    [
        (0.8, "s", ["0 ms", "200 ms", "400 ms", "600 ms", "800 ms"]),
        (0.99, "s", ["0 s", "0.25 s", "0.5 s", "0.75 s", "1 s"]),
        (1.0, "percentunit", ["0%", "25%", "50%", "75%", "100%"]),
        (3.5 * 2**20, "bytes", ["0 MiB", "1 MiB", "2 MiB", "3 MiB", "4 MiB"]),
    ],
)
def test_axis_has_round_numbers_of_one_scale_up_to_what_it_shows(
    most: float, unit: str, written: list[str]
) -> None:
    ticks = value_ticks(most, unit, count=4)
    assert list(ticks.values()) == written
    assert min(ticks) == 0
    assert max(ticks) >= most


def test_clock_has_round_minutes_and_no_more_than_asked() -> None:
    ticks = clock_ticks(HALF_PAST_TWO + 20, HALF_PAST_TWO + 8 * 60, count=4)
    assert list(ticks.values()) == ["14:32", "14:34", "14:36", "14:38"]


def test_clock_of_many_days_has_dates() -> None:
    ticks = clock_ticks(HALF_PAST_TWO, HALF_PAST_TWO + 3 * 86_400, count=3)
    assert list(ticks.values()) == ["02 Mar", "03 Mar", "04 Mar"]


def test_legend_names_the_labels_of_its_series() -> None:
    labels = {"application": "llama", "queue": "requests"}
    assert legend("{{application}} {{ queue }}", labels) == "llama requests"
    assert legend("failed", labels) == "failed"


def test_things_flow_into_lines_and_one_too_wide_has_a_line_of_its_own() -> None:
    assert flow([40, 50, 20, 300, 10], 100) == [(0, 0), (40, 0), (0, 1), (0, 2), (0, 3)]
