"""`orrery models`, `status`, `tokenize` and `score`, and the processes behind a platform."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orrery.cli.models import short_count
from orrery.cli.platform_state import PlatformState, read_platform_state
from orrery.cli.processes import platform_processes, process_name
from orrery.v1 import generation_pb2 as pb
from services.runtime import errors as served
from services.runtime.health import READINESS
from tests.fakes.generation_server import generation_server
from tests.unit.client.command import orrery
from tests.unit.client.scripted import ScriptedServer, by_application, refuse, reply

HASH = "0123abcd" * 8
LOADED = pb.GetLoadResponse(
    num_running=3, num_waiting=5, num_blocks=200, num_free_blocks=50, prefix_cache_hit_rate=0.25
)


@pytest.fixture
def platform(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two models, of which one is loading, and a gateway; returns the data folder."""
    monkeypatch.setenv("ORRERY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ORRERY_TARGET", server.target)
    server.on("ListApplications", reply(FieldMask(paths=["llama", "gpt", "gateway"])))
    ready = reply(
        pb.GetModelResponse(model="orrery-llama", num_parameters=5_240_000, weight_hash=HASH)
    )
    loading = refuse(served.NotReady("loading"))
    server.on("GetModel", by_application({"llama": ready, "gpt": loading}))
    server.on("GetLoad", reply(LOADED))
    return tmp_path


@contextmanager
def gateway(status: int) -> Iterator[str]:
    """An HTTP server whose `/ready` answers `status` and that tells its version; yields its
    address.
    """
    answers = {
        "/ready": (status, {}),
        "/version": (200, {"version": "1.2.3", "contract": "orrery.v1"}),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, answer = answers[self.path]
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *unused: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


def write_state(data_dir: Path, *, http: str, grpc: str, pids: list[int]) -> None:
    state = {"http": http, "grpc": grpc, "session_pids_root": pids, "more": 1}
    (data_dir / "platform.json").write_text(json.dumps(state))


def row(output: str, first_cell: str) -> list[str]:
    return next(line.split() for line in output.splitlines() if line.startswith(first_cell))


async def test_models_are_listed_with_those_that_do_not_answer(platform: Path) -> None:
    outcome = await orrery("models")
    assert outcome.exit_code == 0
    assert row(outcome.stdout, "orrery-llama")[1] == "llama"
    assert "5.24M" in outcome.stdout
    assert "NOT_READY" in " ".join(row(outcome.stdout, "-"))
    assert "gateway" not in outcome.stdout


async def test_models_as_json(platform: Path) -> None:
    gpt, llama = json.loads((await orrery("models", "--json")).stdout)
    assert gpt == {"application": "gpt", "error": {"reason": "NOT_READY", "message": "loading"}}
    assert llama["name"] == "orrery-llama"
    assert llama["cache"]["num_blocks"] == 0


async def test_status_shows_load_and_who_does_not_answer(platform: Path) -> None:
    outcome = await orrery("status")
    assert outcome.exit_code == 3
    assert row(outcome.stdout, "llama") == [
        "llama",
        "orrery-llama",
        "0123abcd",
        "ready",
        "-",
        "3",
        "5",
    ]
    assert "llama: 75% of the KV cache in use, 25% of prompt tokens" in outcome.stdout
    assert row(outcome.stdout, "gpt")[3] == "NOT_READY"
    assert row(outcome.stdout, "gateway")[1:4] == ["-", "-", "-"]
    assert str(platform) in outcome.stdout  # where it looked for processes


async def test_status_cuts_no_name_on_a_narrow_terminal(
    platform: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ["embedding", "gateway", "gpt", "llama", "rag", "retrieval"]
    server.on("ListApplications", reply(FieldMask(paths=names)))
    model = pb.GetModelResponse(model="all-MiniLM-L6-v2", weight_hash=HASH)
    server.on("GetModel", reply(model))
    lines = (await orrery("status")).stdout.splitlines()
    assert max(map(len, lines[: len(names) + 4])) <= 80
    for name in names:
        assert row("\n".join(lines), name)[:4] == [name, "all-MiniLM-L6-v2", HASH[:8], "ready"]


async def test_status_shows_the_processes_of_the_platform_and_their_sum(
    platform: Path, server: ScriptedServer
) -> None:
    server.on("ListApplications", reply(FieldMask(paths=["llama"])))
    with gateway(200) as address:
        write_state(platform, http=address, grpc=server.target, pids=[os.getpid()])
        table = await orrery("status")
        report = json.loads((await orrery("status", "--json")).stdout)
    assert table.exit_code == 0
    assert f"{address}  ready, version 1.2.3, contract orrery.v1" in table.stdout
    assert (report["gateway"]["version"], report["contract"]) == ("1.2.3", "orrery.v1")
    assert report["services"][0]["weight_hash"] == HASH
    assert "in all" in table.stdout
    own = next(process for process in report["processes"] if process["pid"] == os.getpid())
    assert own["rss_bytes"] > 10 << 20
    assert own["pss_bytes"] <= own["rss_bytes"]
    assert report["total_rss_bytes"] == sum(p["rss_bytes"] for p in report["processes"])
    assert report["services"][0]["load"]["num_running"] == 3


@pytest.mark.parametrize(("status", "told"), [(503, "HTTP 503"), (None, "does not answer")])
async def test_status_tells_a_gateway_that_is_not_ready(
    platform: Path, server: ScriptedServer, status: int | None, told: str
) -> None:
    with gateway(status or 200) as address:
        http = address if status else "127.0.0.1:1"
        write_state(platform, http=http, grpc=server.target, pids=[])
        outcome = await orrery("status")
    assert told in outcome.stdout


async def test_status_says_why_a_service_that_answers_is_not_ready(
    platform: Path, server: ScriptedServer
) -> None:
    server.on("ListApplications", reply(FieldMask(paths=["llama"])))
    server.on("Check", refuse(served.NotReady("a step has been under way for 130 s")))
    outcome = await orrery("status")
    assert outcome.exit_code == 3
    assert row(outcome.stdout, "llama")[3:] == ["NOT_READY", "-", "3", "5"]
    assert "llama: a step has been under way for 130 s" in outcome.stdout
    (asked, *_) = server.calls("Check")
    assert (asked.request.service, asked.metadata["application"]) == (READINESS, "llama")


@pytest.mark.parametrize("by_option", [True, False])
async def test_status_of_another_platform_shows_nothing_of_the_one_on_this_machine(
    platform: Path, server: ScriptedServer, by_option: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("ListApplications", reply(FieldMask(paths=["llama"])))
    write_state(platform, http="127.0.0.1:1", grpc="127.0.0.1:2", pids=[os.getpid()])
    if by_option:
        monkeypatch.delenv("ORRERY_TARGET")
    target = ["--target", server.target] if by_option else []
    outcome = await orrery("status", *target)
    assert outcome.exit_code == 0
    assert "HTTP" not in outcome.stdout
    assert "No processes listed" in outcome.stdout


async def test_status_finds_the_target_in_the_state(
    platform: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORRERY_TARGET")
    write_state(platform, http="127.0.0.1:1", grpc="127.0.0.1:1", pids=[])
    outcome = await orrery("status", "--timeout", "1")
    assert outcome.exit_code == 3
    assert "127.0.0.1:1 does not answer" in outcome.stderr


@pytest.mark.parametrize(
    "content", ["not json", "{}", "[]", '{"http": 1, "grpc": 2, "session_pids_root": 3}']
)
async def test_status_refuses_a_broken_state_file_by_name(platform: Path, content: str) -> None:
    (platform / "platform.json").write_text(content)
    outcome = await orrery("status")
    assert outcome.exit_code == 2
    assert "platform.json" in outcome.stderr


async def test_status_refuses_a_state_that_cannot_be_read_by_name(platform: Path) -> None:
    (platform / "platform.json").mkdir()
    outcome = await orrery("status")
    assert outcome.exit_code == 2
    assert "platform.json: Is a directory" in outcome.stderr


def test_state_is_what_the_launcher_writes(tmp_path: Path) -> None:
    launcher = pytest.importorskip("deploy.state")
    launcher.PlatformState(
        platform_id="p",
        http="127.0.0.1:8000",
        grpc="127.0.0.1:9000",
        metrics="127.0.0.1:8090",
        ray_address="127.0.0.1:6379",
        applications=("llama",),
        session_pids_root=(1, 2),
    ).save(tmp_path)
    state = read_platform_state(tmp_path)
    assert state == PlatformState("127.0.0.1:8000", "127.0.0.1:9000", (1, 2))


TREE = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--key=secret"])
# A grandchild whose parent is gone: init's by parentage, but still of this session.
orphan = subprocess.check_output(["sh", "-c", "sleep 60 >/dev/null & echo $!"], text=True)
print(child.pid, int(orphan), flush=True)
time.sleep(60)
"""


def test_processes_are_the_descendants_and_the_session_of_the_roots() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TREE], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as root:
        assert root.stdout is not None
        child, orphan = map(int, root.stdout.readline().split())
        try:
            found = {process.pid: process for process in platform_processes([root.pid])}
            assert set(found) == {root.pid, child, orphan}
            assert found[orphan].name == "sleep"
            assert all(process.rss_bytes > 0 for process in found.values())
            assert "secret" not in str(found)
        finally:
            os.killpg(root.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["ray::ServeReplica:llama:Generation"], "ray::ServeReplica:llama:Generation"),
        (["ray::ServeController.listen_for_change   "], "ray::ServeController"),
        (["ray::ServeReplica:v1.2:Generation"], "ray::ServeReplica:v1.2:Generation"),
        (["/usr/bin/redis-server *:6379"], "redis-server"),
        (
            ["/venv/bin/python3.11", "-u", "-m", "ray.util.client.server", "--token=x"],
            "python -m ray.util.client.server",
        ),
        (["python3", "-u", "/site/ray/dashboard.py", "--key=x"], "python dashboard.py"),
        (["python3", "-c", "secret()"], "python3"),
        ([""], ""),
    ],
)
def test_name_of_a_process_says_what_it_is_without_its_arguments(
    arguments: list[str], name: str
) -> None:
    assert process_name(arguments) == name


def test_roots_that_have_ended_have_no_processes() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert platform_processes([ended.pid]) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [(999, "999"), (5_240_000, "5.24M"), (7_000_000_000, "7B"), (12_345, "12.3K")],
)
def test_large_counts_are_shortened(number: int, text: str) -> None:
    assert short_count(number) == text


async def test_tokenize_and_score_against_the_real_servicer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with generation_server() as server:
        monkeypatch.setenv("ORRERY_TARGET", server.target)
        tokens = await orrery("tokenize", "ab")
        bare = json.loads((await orrery("tokenize", "ab", "--no-special", "--json")).stdout)
        scores = await orrery("score", stdin="abc\n")
        best = await orrery("score", "abc", "--context", "x", "--top", "2")
    assert [line.split() for line in tokens.stdout.splitlines()[1:4]] == [
        ["256", "'<s>'"],
        ["97", "'a'"],
        ["98", "'b'"],
    ]
    assert bare["token_ids"] == [97, 98]
    assert "3 tokens" in scores.stdout
    assert "(first token)" in scores.stdout
    assert "BEST" not in scores.stdout
    assert "BEST" in best.stdout
