"""Pictures of dashboards from an HTTP API that answers as Prometheus does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from deploy.grafana_dashboards import Query, dashboards
from deploy.grafana_drawing import Window
from deploy.grafana_pictures import lines_of, main, window
from deploy.ports import HOST, free_port

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOOKED_AT = Window(100, 120, 10)
Answer = Callable[[dict[str, str]], dict[str, Any]]


class FakePrometheus:
    """Answers range queries at `url`; `answer` may be replaced."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer: Answer = with_one_series
        self.asked: list[dict[str, str]] = []


def with_one_series(asked: dict[str, str]) -> dict[str, Any]:
    start, end, step = (int(asked[name]) for name in ("start", "end", "step"))
    values = [[at, str(at % 7)] for at in range(start, end + 1, step)]
    series = {"metric": {"application": "llama"}, "values": values}
    return {"status": "success", "data": {"result": [series]}}


@pytest.fixture
def fake() -> Iterator[FakePrometheus]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {key: found[0] for key, found in parse_qs(urlsplit(self.path).query).items()}
            fake.asked.append(asked)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(fake.answer(asked)).encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = HTTPServer((HOST, 0), Handler)
    fake = FakePrometheus(f"http://{HOST}:{server.server_port}")
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_panel_is_asked_for_and_drawn(fake: FakePrometheus, tmp_path: Path) -> None:
    assert main(["moe", "--prometheus", fake.url, "--output", str(tmp_path)]) == 0
    (moe,) = (each for each in dashboards() if each.name == "moe")
    assert [each["query"] for each in fake.asked] == [
        query.runnable for panel in moe.panels for query in panel.asked
    ]
    with Image.open(tmp_path / "moe.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(2**24) or ()) > 10


def test_panel_without_data_is_named_and_the_rest_is_drawn(
    fake: FakePrometheus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(query: dict[str, str]) -> dict[str, Any]:
        if "dropped_fraction" in query["query"]:
            return {"status": "success", "data": {"result": []}}
        return with_one_series(query)

    fake.answer = answer
    assert main(["moe", "--prometheus", fake.url, "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "no data: Orrery / Experts, Dropped: layer {{layer}}" in said
    assert said.count("no data") == 1
    assert (tmp_path / "moe.png").exists()


def test_refused_query_is_an_error(
    fake: FakePrometheus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer = lambda query: {"status": "error", "error": "parse error"}
    assert main(["--prometheus", fake.url, "--output", str(tmp_path)]) == 1
    assert "parse error" in capsys.readouterr().out


def test_prometheus_that_is_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://{HOST}:{free_port()}"
    assert main(["moe", "--prometheus", url, "--output", str(tmp_path)]) == 1
    assert "no Prometheus answers" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["nothing"], ["--minutes", "0"], ["--until", "today"]])
def test_wrong_option_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(wrong)


@pytest.mark.parametrize("minutes", [1.0, 8.0, 24 * 60.0])
def test_window_ends_at_its_moment_and_has_enough_to_draw(minutes: float) -> None:
    found = window(NOON, minutes)
    assert found.end == NOON.timestamp()
    assert found.end - found.start == 60 * minutes
    assert 12 <= len(found.moments) <= 121


def test_moments_without_a_number_are_gaps_and_series_without_any_are_left_out() -> None:
    found = [
        {"metric": {"application": "llama"}, "values": [[100, "1.5"], [120, "NaN"]]},
        {"metric": {"application": "gpt"}, "values": [[110, "+Inf"], [120, "2"]]},
        {"metric": {"application": "moe"}, "values": [[100, "NaN"]]},
    ]
    gpt, llama = lines_of(Query(legend="p50 {{application}}", expr="x"), found, LOOKED_AT)
    assert (gpt.label, llama.label) == ("p50 gpt", "p50 llama")
    assert [math.isnan(value) for value in gpt.values] == [True, True, False]
    assert llama.values[0] == llama.last == 1.5
    assert llama.is_dashed
