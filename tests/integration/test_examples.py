"""The programs of `clients/examples` run as they stand: in this process, and on the platform."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.fakes.generation_server import generation_server_in_thread
from tests.integration.conftest import RetrievalApi
from tests.tools import tool

EXAMPLES = REPOSITORY / "clients" / "examples"
CAPTAIN = "Camamir Dorland"  # whom the demo model finds in the passages; the toy reads nothing


def run(name: str, environment: Mapping[str, str], folder: Path) -> str:
    """What an example prints. It runs elsewhere, with nothing of the repository to import."""
    path = EXAMPLES / name
    command = [sys.executable, str(path)] if path.suffix == ".py" else [str(path)]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ORRERY_") and name != "PYTHONPATH"
    }
    result = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, "NO_PROXY": "*", **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


@dataclass(frozen=True, slots=True)
class Over:
    """Where an example runs against, by the variables it reads."""

    environment: Mapping[str, str]
    real: bool  # the demo model answers, and not the toy


@pytest.fixture
def http(retrieval_api: RetrievalApi) -> Over:
    return Over(
        {
            "ORRERY_URL": retrieval_api.url,
            "ORRERY_MODEL": retrieval_api.chat_model,
            "ORRERY_EMBEDDING_MODEL": retrieval_api.embedding_model,
        },
        real=retrieval_api.chat_model == "orrery-llama",
    )


def after(marker: str, printed: str) -> str:
    """The rest of the line that begins so."""
    return next(
        line.removeprefix(marker) for line in printed.splitlines() if line.startswith(marker)
    )


def test_openai_chats_embeds_and_searches(http: Over, tmp_path: Path) -> None:
    printed = run("openai_client.py", http.environment, tmp_path)
    assert http.environment["ORRERY_MODEL"] in after("models:", printed)
    assert "tokens)" in after("chat: ", printed)
    near, far = (line for line in printed.splitlines() if line.startswith("similarity"))
    assert float(near.split()[1].rstrip(":")) > float(far.split()[1].rstrip(":"))
    assert "ships.md: The Bratarine sails" in printed
    assert not http.real or CAPTAIN in after("chat: ", printed)


@pytest.mark.parametrize("name", ["langchain_chain.py", "llamaindex_query.py"])
def test_frameworks_find_the_passage_and_have_it_read(
    name: str, http: Over, tmp_path: Path
) -> None:
    printed = run(name, http.environment, tmp_path)
    assert "The Bratarine sails" in after("found", printed)
    assert after("answer: ", printed)
    assert not http.real or CAPTAIN in after("answer: ", printed)


def test_curl_chats_streams_embeds_and_asks(http: Over, tmp_path: Path) -> None:
    tool("curl")
    printed = run("curl.sh", http.environment, tmp_path)
    titled = printed.split("# ")[1:]
    models, whole, pieces, vectors, collection, answer = (
        part.partition("\n")[2].strip() for part in titled
    )
    assert http.environment["ORRERY_MODEL"] in [each["id"] for each in json.loads(models)["data"]]
    text = json.loads(whole)["choices"][0]["message"]["content"]
    events = [line.removeprefix("data: ") for line in pieces.splitlines() if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == text
    assert len(json.loads(vectors)["data"][0]["embedding"]) == 4
    assert json.loads(collection.splitlines()[1])["data"][0]["status"] == "added"
    assert json.loads(answer)["answer"]
    assert not http.real or CAPTAIN in text
    assert not http.real or CAPTAIN in json.loads(answer)["answer"]


# --- gRPC -------------------------------------------------------------------------------------


@pytest.fixture(params=["in_process", pytest.param("platform", marks=pytest.mark.integration)])
def grpc(request: pytest.FixtureRequest) -> Iterator[Over]:
    if request.param == "platform":
        target = request.getfixturevalue("platform").grpc_target
        yield Over({"ORRERY_TARGET": target, "ORRERY_APPLICATION": "llama"}, real=True)
    else:
        with generation_server_in_thread() as server:
            yield Over({"ORRERY_TARGET": server.target}, real=False)


@pytest.fixture
def path_with_grpcurl(tmp_path: Path) -> str:
    """The real one where it is installed, and otherwise what stands for it."""
    path = os.environ["PATH"]
    if shutil.which("grpcurl") is None:
        tool("npx")
        stand_in = tmp_path / "grpcurl"
        stand_in.write_text(
            f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" '
            '-m tests.fakes.grpcurl "$@"\n'
        )
        stand_in.chmod(0o755)
        path = f"{tmp_path}{os.pathsep}{path}"
    return path


def test_grpcurl_lists_checks_generates_and_tells_the_load(
    grpc: Over, path_with_grpcurl: str, tmp_path: Path
) -> None:
    printed = run("grpcurl.sh", {**grpc.environment, "PATH": path_with_grpcurl}, tmp_path)
    services, health, model, messages, load = (
        part.partition("\n")[2] for part in printed.split("# ")[1:]
    )
    assert {"orrery.v1.GenerationService", "grpc.health.v1.Health"} <= set(services.split())
    assert json.loads(health) == {"status": "SERVING"}
    assert int(json.loads(model)["maxModelLen"]) > 0
    generated = json_values(messages)
    assert len(generated) > 1
    text = "".join(delta.get("text", "") for each in generated for delta in each["choices"])
    assert generated[-1]["usage"]["completionTokens"] > 1
    assert not grpc.real or CAPTAIN in text
    assert int(json.loads(load)["numCompletionTokens"]) >= 1


def json_values(text: str) -> list[dict]:
    """One JSON value after another."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found
