"""The batch: joining, leaving, cancelling at any step; a picture's own numbers; guilt by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.image.loop import denoising
from services.image.loop.denoising import Picture
from services.image.loop.engine import Denoised, Failed, ImageEngine, NotFinite, Stepped
from services.image.loop.limits import EngineLimits
from services.image.loop.prepared import Prepared
from tests.unit.image.toy import BAD, Broken, ToyDenoiser, alone, run_out, toy_picture


@pytest.fixture
def model() -> ToyDenoiser:
    return ToyDenoiser()


@pytest.fixture
def engine(model: ToyDenoiser) -> Iterator[ImageEngine]:
    """Whatever a test did to it, it is whole, and empty once all have left."""
    engine = ImageEngine(model, EngineLimits(max_running=8))
    yield engine
    engine.check_integrity()
    run_out(engine)
    engine.check_integrity()
    assert (engine.num_running, engine.state_bytes) == (0, 0)


def random_picture(rng: random.Random, **changes: Any) -> tuple[int, dict[str, Any]]:
    options: dict[str, Any] = {
        "num_steps": rng.randint(1, 9),
        "size": rng.choice([(4, 4), (4, 4), (4, 6), (8, 8)]),
        "guided": rng.random() < 0.6,
        "stochastic": rng.random() < 0.4,
        "kept": rng.random() < 0.3,
    }
    return rng.randint(0, 10**6), options | changes


def test_pictures_of_one_size_go_in_one_call(engine: ImageEngine, model: ToyDenoiser) -> None:
    engine.add(toy_picture(1, num_steps=3))
    engine.add(toy_picture(2, num_steps=3, guided=False))
    last = run_out(engine)
    assert model.calls == [(3, 4, 4)] * 3
    assert all(isinstance(event, Denoised) for event in last.values())


def test_a_picture_joins_between_steps(engine: ImageEngine, model: ToyDenoiser) -> None:
    engine.add(toy_picture(1, num_steps=3, guided=False))
    engine.step()
    engine.add(toy_picture(2, num_steps=3, guided=False))
    run_out(engine)
    assert model.calls == [(1, 4, 4), (2, 4, 4), (2, 4, 4), (1, 4, 4)]


def test_a_call_says_what_it_took(engine: ImageEngine) -> None:
    engine.add(toy_picture(1, num_steps=1))
    engine.add(toy_picture(2, num_steps=1, guided=False))
    outcome = engine.step()
    assert outcome is not None
    stats = outcome.stats
    assert (stats.num_pictures, stats.num_rows, stats.num_latent_pixels) == (2, 3, 48)
    assert engine.step() is None


@pytest.mark.parametrize("seed", range(50))
def test_a_picture_is_bit_identical_in_any_mix(engine: ImageEngine, seed: int) -> None:
    """The batch around it comes, goes and is cancelled at random."""
    rng = random.Random(seed)
    waiting = [random_picture(rng) for _ in range(12)]
    expected = [alone(toy_picture(number, **options)) for number, options in waiting]
    running: dict[int, int] = {}
    results: dict[int, torch.Tensor] = {}
    next_up = 0
    while next_up < len(waiting) or engine.num_running:
        while next_up < len(waiting) and engine.num_free and rng.random() < 0.5:
            number, options = waiting[next_up]
            running[engine.add(toy_picture(number, **options))] = next_up
            next_up += 1
        if running and rng.random() < 0.05:
            gone = rng.choice(list(running))
            engine.cancel(gone)
            del running[gone]
        outcome = engine.step()
        engine.check_integrity()
        for event in outcome.events if outcome else []:
            if isinstance(event, Denoised):
                results[running.pop(event.slot_id)] = event.latents
    assert results
    for position, latents in results.items():
        assert torch.equal(latents, expected[position])


def test_pictures_that_take_turns_are_bit_identical_too(model: ToyDenoiser) -> None:
    engine = ImageEngine(model, EngineLimits(max_running=7, max_pixels_per_call=5 * 16))
    pictures = {engine.add(toy_picture(i, num_steps=5, stochastic=i % 2 == 0)): i for i in range(7)}
    for slot_id, event in run_out(engine).items():
        i = pictures[slot_id]
        assert isinstance(event, Denoised)
        assert torch.equal(event.latents, alone(toy_picture(i, num_steps=5, stochastic=i % 2 == 0)))
    assert max(rows for rows, _, _ in model.calls) <= 5


@pytest.mark.parametrize("fault", [BAD, float("nan"), float("inf")])
def test_a_picture_that_breaks_fails_alone(engine: ImageEngine, fault: float) -> None:
    good = [engine.add(toy_picture(i, num_steps=5)) for i in range(3)]
    engine.step()
    bad = engine.add(toy_picture(9, num_steps=5, fault=fault))
    last = run_out(engine)
    assert isinstance(last[bad], Failed)
    assert isinstance(last[bad].error, Broken if fault == BAD else NotFinite)
    for i, slot_id in enumerate(good):
        event = last[slot_id]
        assert isinstance(event, Denoised)
        assert torch.equal(event.latents, alone(toy_picture(i, num_steps=5)))


@pytest.mark.parametrize("num_beside", [0, 3])
def test_a_call_that_finds_no_memory_fails_those_alone_whom_it_fails_alone(
    engine: ImageEngine, num_beside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a call is stacked from may not fit, before the model is asked at all."""
    good = {engine.add(toy_picture(i, num_steps=5)): i for i in range(num_beside)}
    engine.step()
    large = engine.add(toy_picture(9, num_steps=5, kept=True))

    def no_memory(prepared: Sequence[Prepared]) -> None:
        raise MemoryError("for the kept areas")

    monkeypatch.setattr(denoising, "_StackedKeptAreas", no_memory)
    last = run_out(engine)
    assert isinstance(last[large], Failed)
    for slot_id, i in good.items():
        event = last[slot_id]
        assert isinstance(event, Denoised)
        assert torch.equal(event.latents, alone(toy_picture(i, num_steps=5)))


def test_a_picture_whose_preview_finds_no_memory_fails_alone(
    engine: ImageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = engine.add(toy_picture(1, num_steps=5))
    bad = engine.add(toy_picture(2, num_steps=5, preview_every=2))

    def no_memory(self: Picture) -> torch.Tensor:
        raise MemoryError("for a copy")

    monkeypatch.setattr(Picture, "preview", no_memory)
    last = run_out(engine)
    assert isinstance(last[bad], Failed)
    assert isinstance(last[good], Denoised)


def test_a_failed_call_costs_nobody_a_draw_of_noise(engine: ImageEngine) -> None:
    good = engine.add(toy_picture(4, num_steps=6, stochastic=True))
    engine.step()
    engine.add(toy_picture(9, num_steps=6, stochastic=True, fault=BAD))
    event = run_out(engine)[good]
    assert isinstance(event, Denoised)
    assert torch.equal(event.latents, alone(toy_picture(4, num_steps=6, stochastic=True)))


def test_previews_come_when_due_and_are_the_estimate_without_noise(engine: ImageEngine) -> None:
    slot_id = engine.add(toy_picture(1, num_steps=7, preview_every=3))
    previews = {}
    while (outcome := engine.step()) is not None:
        for event in outcome.events:
            if isinstance(event, Stepped) and event.preview is not None:
                previews[event.step] = event.preview
                estimate = engine._pictures[slot_id].x0
                assert torch.equal(event.preview, estimate)
                assert event.preview.data_ptr() != estimate.data_ptr()
    assert list(previews) == [3, 6]


def test_a_preview_shows_what_is_kept_of_the_source(engine: ImageEngine) -> None:
    prepared = toy_picture(1, num_steps=3, kept=True, preview_every=1)
    assert prepared.kept is not None
    engine.add(prepared)
    outcome = engine.step()
    assert outcome is not None
    (event,) = outcome.events
    assert isinstance(event, Stepped)
    assert event.preview is not None
    stays = (prepared.kept.mask == 0).expand_as(event.preview)
    assert stays.any()
    assert torch.equal(event.preview[stays], prepared.kept.source[stays])


def test_two_hundred_cancels_at_random_steps_leave_nothing(engine: ImageEngine) -> None:
    rng = random.Random(3)
    running: list[int] = []
    num_cancelled = 0
    while num_cancelled < 200:
        while engine.num_free:
            number, options = random_picture(rng)
            running.append(engine.add(toy_picture(number, **options)))
        engine.step()
        if rng.random() < 0.7:
            gone = rng.choice(running)
            running.remove(gone)
            engine.cancel(gone)
            num_cancelled += 1
            engine.check_integrity()
        running = [slot_id for slot_id in running if slot_id in engine._pictures]
    for slot_id in running:
        engine.cancel(slot_id)
    assert engine._calls == {}
    assert (engine.num_running, engine.state_bytes) == (0, 0)


def test_state_bytes_count_what_the_pictures_hold(engine: ImageEngine) -> None:
    prepared = toy_picture(1, num_steps=4, kept=True)
    slot_id = engine.add(prepared)
    latents_bytes = prepared.latents.nbytes
    assert engine.state_bytes == prepared.num_bytes + 2 * latents_bytes
    engine.cancel(slot_id)
    assert engine.state_bytes == 0


class BatchMachine(RuleBasedStateMachine):
    """Any order of add, cancel and step: whole after each, and every picture as if alone."""

    def __init__(self) -> None:
        super().__init__()
        limits = EngineLimits(max_running=4, max_pixels_per_call=64)
        self.engine = ImageEngine(ToyDenoiser(), limits)
        self.running: dict[int, tuple[Prepared, torch.Tensor | None, int]] = {}

    @precondition(lambda self: self.engine.num_free > 0)
    @rule(seed=st.integers(0, 2**31), faulty=st.sampled_from([None, None, None, BAD, float("nan")]))
    def add(self, seed: int, faulty: float | None) -> None:
        number, options = random_picture(random.Random(seed), fault=faulty)
        prepared = toy_picture(number, **options)
        expected = None if faulty else alone(toy_picture(number, **options))
        slot_id = self.engine.add(prepared)
        assert slot_id not in self.running
        self.running[slot_id] = (prepared, expected, 0)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 10))
    def cancel(self, which: int) -> None:
        slot_id = sorted(self.running)[which % len(self.running)]
        self.engine.cancel(slot_id)
        self.engine.cancel(slot_id)  # twice is once
        del self.running[slot_id]

    @rule()
    def step(self) -> None:
        outcome = self.engine.step()
        assert (outcome is None) == (not self.running)
        for event in outcome.events if outcome else []:
            prepared, expected, step = self.running[event.slot_id]
            if isinstance(event, Failed):
                assert expected is None
                del self.running[event.slot_id]
                continue
            assert event.step == step + 1
            if isinstance(event, Denoised):
                assert event.step == prepared.num_steps
                assert expected is not None
                assert torch.equal(event.latents, expected)
                del self.running[event.slot_id]
            else:
                self.running[event.slot_id] = (prepared, expected, step + 1)

    @invariant()
    def is_whole(self) -> None:
        self.engine.check_integrity()
        assert self.engine.num_running == len(self.running)
        assert (self.engine.state_bytes == 0) == (not self.running)

    def teardown(self) -> None:
        while self.running:
            self.step()
        self.is_whole()


BatchMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestBatch = BatchMachine.TestCase
