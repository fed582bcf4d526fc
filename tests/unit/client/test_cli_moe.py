"""`orrery moe`, against a real router with two shards and a tiny random model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.moe_cluster import MODEL_NAME, RunningCluster, moe_cluster, moe_cluster_in_thread
from tests.fakes.moe_model import NUM_EXPERTS, NUM_LAYERS, moe_folder
from tests.unit.client.command import orrery

TEXT = "It opened in 1873, and cost 4200 pounds."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[RunningCluster]:
    limits = {"max_text_bytes": 200}
    with moe_cluster_in_thread(folder, limits=limits, load_window_s=60) as cluster:
        yield cluster


@pytest.fixture
def router(
    running: RunningCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> RunningCluster:
    """The router, which the commands find; they run in an empty folder."""
    monkeypatch.setenv("ORRERY_TARGET", running.target)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return running


def rows(output: str, heading: str) -> list[list[str]]:
    """The cells of the rows below a heading, up to an empty line."""
    lines = iter(output.splitlines())
    next(line for line in lines if line.startswith(heading))
    found: list[list[str]] = []
    for line in lines:
        if not line.strip():
            break
        found.append(line.split())
    return found


# --- analyze ----------------------------------------------------------------------------------


async def test_analyze_shows_each_token_with_its_first_expert(router: RunningCluster) -> None:
    told = json.loads((await orrery("moe", "analyze", TEXT, "--json")).stdout)
    shown = (await orrery("moe", "analyze", TEXT)).stdout
    lines = [line for line in shown.splitlines() if "₀" in line or "₁" in line or "₂" in line]
    assert len(lines) >= NUM_LAYERS
    text = "".join(shown.split())
    for layer in told["layers"]:
        firsts = [ids[0] for ids in layer["routing"]["expert_ids"]]
        pairs = zip(TEXT, firsts, strict=True)
        expected = "".join(f"{letter}{'₀₁₂₃₄₅₆₇'[first]}" for letter, first in pairs)
        assert expected.replace(" ", "") in text


async def test_analyze_tells_losses_and_shares_of_each_layer(router: RunningCluster) -> None:
    told = json.loads((await orrery("moe", "analyze", TEXT, "--json")).stdout)
    assert (told["model"], told["num_experts"]) == (MODEL_NAME, NUM_EXPERTS)
    shown = (await orrery("moe", "analyze", stdin=TEXT + "\n")).stdout
    for layer in told["layers"]:
        number = layer["routing"]["layer"]
        at = shown.index(f"layer {number}: load-balancing loss {layer['load_balancing_loss']:.3f}")
        block = shown[at:].split("\n\n")[0]
        assert f"z-loss {layer['z_loss']:.3f}" in block
        for expert, share in enumerate(layer["shares"]):
            assert share == 0 or f"{expert}  " in block
            assert share == 0 or f"{share:.1%}" in block
        assert "NUMBER" in block
        assert "PUNCTUATION" in block
        numbers = next(
            each
            for each in told["token_classes"]
            if (each["layer"], each["token_class"]) == (number, "number")
        )
        assert numbers["num_tokens"] == sum(letter.isdigit() for letter in TEXT)
        assert all(f"{share:.0%}" in block for share in numbers["shares"] if share)


async def test_analyze_draws_a_picture(router: RunningCluster, tmp_path: Path) -> None:
    outcome = await orrery("moe", "analyze", TEXT, "-o", "heat.png")
    assert outcome.exit_code == 0
    with Image.open(tmp_path / "heat.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > NUM_EXPERTS
    await orrery("moe", "analyze", TEXT, "-o", "heat.svg", "--json")
    assert MODEL_NAME in (tmp_path / "heat.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["analyze", ""], "text: expected a text that is not empty"),
        (["analyze", "x" * 201], "text: expected at most 200 bytes"),
        (["analyze", "x", "-o", "heat.gif"], "--output: expected a file that ends with .png"),
        (["analyze", "x", "-o", "nowhere/heat.png"], "--output: there is no folder nowhere"),
        (["analyze", "x", "-o", "y" * 300 + "/heat.png"], "--output: there is no folder"),
        (["load", "--window", "61"], "window_s: expected 1 to 60 seconds"),
        (["load", "--window", "-1"], "window_s"),
        (["load", "--window", "all"], "--window"),
        (["rebalance", "--max-shard-bytes", "1"], "max_shard_bytes"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    router: RunningCluster, arguments: list[str], told: str
) -> None:
    outcome = await orrery("moe", *arguments)
    assert outcome.exit_code == 2
    assert told in outcome.stderr
    assert outcome.stdout == ""
    assert os.listdir() == []


async def test_a_picture_that_cannot_be_written_is_refused(
    router: RunningCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "folder.png").mkdir()
    outcome = await orrery("moe", "analyze", TEXT, "-o", "folder.png")
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "Is a directory" in outcome.stderr
    # Whoever runs the tests may write anywhere.
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    outcome = await orrery("moe", "analyze", TEXT, "-o", "heat.png")
    assert outcome.exit_code == 2
    assert "--output: heat.png cannot be written to" in outcome.stderr


async def test_a_platform_without_the_application_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORRERY_TARGET", "127.0.0.1:1")
    for arguments in (["analyze", "x"], ["load"], ["placement"], ["rebalance", "--dry-run"]):
        outcome = await orrery("moe", *arguments, "--timeout", "1")
        assert outcome.exit_code == 3
        assert outcome.stderr.count("\n") == 1


# --- load, placement, rebalance ---------------------------------------------------------------


async def test_load_shows_tokens_of_each_expert_and_shard(router: RunningCluster) -> None:
    await orrery("moe", "analyze", TEXT)
    told = json.loads((await orrery("moe", "load", "--json")).stdout)
    shown = (await orrery("moe", "load", "--window", "60")).stdout
    assert [layer["layer"] for layer in told["layers"]] == list(range(NUM_LAYERS))
    for layer in told["layers"]:
        at = shown.index(f"layer {layer['layer']}: max/mean {layer['max_over_mean']:.2f}")
        cells = rows(shown[at:], "EXPERT")
        assert [row[:2] for row in cells] == [
            [str(expert), str(count)] for expert, count in enumerate(layer["num_tokens"])
        ]
        busiest = max(range(NUM_EXPERTS), key=layer["num_tokens"].__getitem__)
        assert cells[busiest][3] == "█" * 30
    assert [row[:2] + row[5:6] for row in rows(shown, "SHARD")] == [
        [shard["shard"], "ready", str(shard["num_rows"])] for shard in told["shards"]
    ]


async def test_placement_shows_the_experts_of_each_shard(router: RunningCluster) -> None:
    told = json.loads((await orrery("moe", "placement", "--json")).stdout)
    shown = (await orrery("moe", "placement")).stdout
    assert f"{MODEL_NAME}: placement {told['version']}" in shown
    held = {
        (int(layer), expert, shard)
        for layer, shard, *experts in rows(shown, "LAYER")
        for expert in map(int, "".join(experts).split(","))
    }
    assert held == {
        (each["layer"], each["expert"], shard)
        for each in told["experts"]
        for shard in each["shards"]
    }


async def test_rebalance_shows_before_and_after_and_moves_unless_told_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    async with moe_cluster(folder) as cluster:
        monkeypatch.setenv("ORRERY_TARGET", cluster.target)
        empty = (await orrery("moe", "rebalance", "--dry-run")).stdout
        assert "there were no tokens to plan from" in empty
        assert "no tokens" in (await orrery("moe", "load")).stdout
        await orrery("moe", "analyze", TEXT)
        told = json.loads((await orrery("moe", "rebalance", "--dry-run", "--json")).stdout)
        dry = (await orrery("moe", "rebalance", "--dry-run")).stdout
        assert "a dry run, nothing moved; placement 1 holds" in dry
        done = (await orrery("moe", "rebalance")).stdout
        assert "moved; placement" in done
        again = (await orrery("moe", "rebalance")).stdout
        assert "there is nothing to gain" in again
    assert rows(dry, "TOKENS") == rows(done, "TOKENS")
    assert rows(dry, "LAYER") == rows(done, "LAYER")
    for number, row in enumerate(rows(dry, "TOKENS")[:2]):
        before, after = told["before"]["num_rows"], told["after"]["num_rows"]
        assert row == [f"shard-{number}", str(before[number]), str(after[number])]
    for row, measure in zip(
        rows(dry, "TOKENS")[2:], ("max_over_mean", "layers_max_over_mean"), strict=True
    ):
        assert row[-2:] == [f"{told[when][measure]:.2f}" for when in ("before", "after")]
    assert {(row[0], row[1]) for row in rows(dry, "LAYER")} == {
        (str(move["layer"]), str(move["expert"])) for move in told["moves"]
    }


# --- orrery status and models -----------------------------------------------------------------


async def test_status_and_models_tell_of_the_router(router: RunningCluster) -> None:
    await orrery("moe", "analyze", TEXT)
    status = await orrery("status")
    assert status.exit_code == 0
    assert (MODEL_NAME, "ready") in [
        (cells[1], cells[3]) for cells in map(str.split, status.stdout.splitlines()) if cells[3:]
    ]
    assert "0 calls to shards; " in status.stdout
    report = json.loads((await orrery("status", "--json")).stdout)
    assert report["services"][0]["load"]["num_tokens_done"] > 0
    models = await orrery("models")
    assert [MODEL_NAME, "-", "experts"] in [line.split()[:3] for line in models.stdout.splitlines()]
    (told,) = json.loads((await orrery("models", "--json")).stdout)
    assert (told["name"], told["num_experts"]) == (MODEL_NAME, NUM_EXPERTS)
