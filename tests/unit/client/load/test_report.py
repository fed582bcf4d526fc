"""The report of a load test: what is shown, what is kept."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image
from rich.console import Console

from orrery.cli.load_tables import print_runs
from orrery.load.outcomes import REFUSED
from orrery.load.report import Run, report_of, write_report
from orrery.load.summary import Objective
from tests.unit.client.load.outcomes import an_outcome

RUN = Run(
    "0.8x",
    5.0,
    (
        an_outcome(),
        an_outcome(planned_s=1.2, first_s=0.3, total_s=0.4),
        an_outcome(REFUSED, planned_s=2.0, total_s=0.01, retry_after_s=2.0),
        an_outcome("UNAVAILABLE", planned_s=4.9),
        an_outcome(kind="embeddings", transport="http", first_s=None, gaps_s=(), num_tokens=0),
    ),
)
EMPTY = Run("4x", 5.0, ())


def test_the_report_that_is_kept_says_what_became_of_each_group(tmp_path: Path) -> None:
    runs = [RUN, EMPTY]
    write_report(tmp_path, runs, report_of(runs, Objective(), capacity={"grpc": 3.5}))
    kept = json.loads((tmp_path / "report.json").read_text())
    whole, *groups = kept["runs"][0]["groups"].values()
    assert (whole["num_requests"], whole["num_ok"], whole["num_refused"]) == (5, 3, 1)
    assert whole["errors"] == {"UNAVAILABLE": 1}
    assert whole["first"]["p99"] == 0.3
    assert [group["num_requests"] for group in groups] == [1, 4]
    assert kept["runs"][1]["groups"]["4x"]["first"]["p50"] is None
    assert kept["capacity"] == {"grpc": 3.5}
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width > picture.height > 500


def test_a_report_without_a_picture_is_json_alone(tmp_path: Path) -> None:
    write_report(tmp_path, [RUN], report_of([RUN], Objective()), picture=False)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_the_tables_show_outcomes_and_latencies() -> None:
    console = Console(file=io.StringIO(), width=160)
    print_runs(console, [RUN, EMPTY], Objective())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("0.8x", "4x", "embeddings over http", "1 UNAVAILABLE", "300"):
        assert text in shown
